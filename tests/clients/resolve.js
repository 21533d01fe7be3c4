// Asks Node for the addresses of a name: `lookup` through the C library, `resolve` through c-ares.
const dns = require("node:dns").promises;

const [how, name] = process.argv.slice(2);
const ask = {
  lookup: async () => (await dns.lookup(name, { all: true })).map((found) => found.address),
  resolve: async () => [...(await dns.resolve4(name)), ...(await dns.resolve6(name))],
}[how];
ask().then(
  (addresses) => addresses.forEach((address) => console.log(address)),
  (error) => {
    console.error(error.code);
    process.exitCode = 1;
  },
);
