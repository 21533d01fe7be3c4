"""Asks name servers as no library would: on sockets of every kind, badly, often, or about nonsense.

`ask.py HOW ARGUMENT...` prints one JSON object per line. What `HOW` is, the functions at the end say.
"""

import hashlib
import json
import select
import socket
import struct
import sys
import threading
import time

TIMEOUT = 5.0
TYPES = {"A": 1, "NS": 2, "CNAME": 5, "SOA": 6, "NULL": 10, "PTR": 12, "MX": 15, "TXT": 16, "AAAA": 28, "SRV": 33,
         "HTTPS": 65, "AXFR": 252, "ANY": 255}


def spell(name):
    labels = [label.encode() for label in name.rstrip(".").split(".") if label]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def question(name, kind="A", number=1, edns=True):
    number_of_kind = TYPES[kind] if kind in TYPES else int(kind)
    head = struct.pack("!6H", number, 0x0100, 1, 0, 0, 1 if edns else 0)
    option = b"\0" + struct.pack("!HHIH", 41, 1232, 0, 0) if edns else b""
    return head + spell(name) + struct.pack("!HH", number_of_kind, 1) + option


def read_name(message, offset):
    labels, end = [], None
    while message[offset]:
        if message[offset] >= 0xC0:
            end = end or offset + 2
            offset = struct.unpack_from("!H", message, offset)[0] & 0x3FFF
            continue
        labels.append(message[offset + 1:offset + 1 + message[offset]].decode("latin1"))
        offset += 1 + message[offset]
    return ".".join(labels), end or offset + 1


def read(message):
    number, flags, questions, answers, authorities, additionals = struct.unpack_from("!6H", message)
    found = {"id": number, "code": flags & 15, "cut": bool(flags & 0x200), "addresses": [], "records": [], "ede": None,
             "text": None, "name": None, "length": len(message), "ttl": None}
    offset = 12
    for _ in range(questions):
        found["name"], offset = read_name(message, offset)
        offset += 4
    for _ in range(answers + authorities + additionals):
        name, offset = read_name(message, offset)
        kind, _, ttl, length = struct.unpack_from("!HHIH", message, offset)
        data = message[offset + 10:offset + 10 + length]
        offset += 10 + length
        if kind == 41:
            # The upper bits of the code.
            found["code"] |= ttl >> 24 << 4
            while len(data) >= 4:
                option, size = struct.unpack_from("!HH", data)
                if option == 15:
                    found["ede"] = struct.unpack_from("!H", data, 4)[0]
                    found["text"] = data[6:4 + size].decode()
                data = data[4 + size:]
            continue
        if len(found["records"]) < answers:
            found["records"].append([name, kind, data.hex()])
            found["ttl"] = ttl if found["ttl"] is None else min(found["ttl"], ttl)
        if kind in (1, 28):
            found["addresses"].append(socket.inet_ntop(socket.AF_INET if kind == 1 else socket.AF_INET6, data))
    return found


def make(server, kind=socket.SOCK_DGRAM, mapped=False):
    family = socket.AF_INET6 if ":" in server or mapped else socket.AF_INET
    made = socket.socket(family, kind)
    made.settimeout(TIMEOUT)
    return made, ("::ffff:" + server if mapped else server, 53)


def tell(**what):
    # In one write: others may write to the same file.
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def attempt(act):
    """What `act` returns, or the error that it ended with, with the time it took."""
    start = time.monotonic()
    try:
        told = act()
    except OSError as error:
        told = {"error": type(error).__name__ if error.errno is None else error.errno}
    told["seconds"] = time.monotonic() - start
    return told


def receive_framed(connection):
    def exactly(count):
        received = b""
        while len(received) < count:
            more = connection.recv(count - len(received))
            if not more:
                raise ConnectionResetError("closed")
            received += more
        return received
    return exactly(struct.unpack("!H", exactly(2))[0])


def framed(message):
    return struct.pack("!H", len(message)) + message


def over_udp(server, message, connected=False, mapped=False, device=None):
    client, to = make(server, mapped=mapped)
    if device:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
    if connected:
        client.connect(to)
        peer = client.getpeername()[:2]
        client.send(message)
    else:
        peer = None
        client.sendto(message, to)
    reply, source = client.recvfrom(65535)
    return {**read(reply), "from": source[:2], "peer": peer}


def over_tcp(server, *messages):
    client, to = make(server, socket.SOCK_STREAM)
    client.connect(to)
    client.sendall(b"".join(framed(message) for message in messages))
    replies = [read(receive_framed(client)) for _ in messages]
    return {**replies[0], "all": replies, "peer": client.getpeername()[:2]}


def udp(server, name, kind="A", *options):
    """One question on an unconnected socket."""
    tell(**attempt(lambda: over_udp(server, question(name, kind, edns="noedns" not in options))))


def connected(server, name, kind="A"):
    """One question on a connected socket."""
    tell(**attempt(lambda: over_udp(server, question(name, kind), connected=True)))


def mapped(server, name, *options):
    """One question to an IPv4 server on an IPv6 socket."""
    tell(**attempt(lambda: over_udp(server, question(name), mapped=True, connected="connected" in options)))


def device(server, name, interface):
    """One question on a socket that is bound to an interface."""
    tell(**attempt(lambda: over_udp(server, question(name), device=interface)))


def tcp(server, *names):
    """Questions on one connection, all at once."""
    tell(**attempt(lambda: over_tcp(server, *[question(name, number=at + 1) for at, name in enumerate(names)])))


def two_servers(one, other, name, other_name):
    """One unconnected socket asks two servers at once."""
    client, to = make(one)
    client.sendto(question(name, number=1), to)
    client.sendto(question(other_name, number=2), (other, 53))
    for _ in range(2):
        reply, source = client.recvfrom(65535)
        tell(**read(reply), **{"from": source[:2]})


def names(server, *names):
    """One question for each of these names, in order."""
    for name in names:
        tell(**attempt(lambda: over_udp(server, question(name))))


def types(server, name, *kinds):
    """One question for each of these types."""
    for kind in kinds:
        tell(**attempt(lambda: over_udp(server, question(name, kind))))


def bad_messages():
    good = question("api.example.com", edns=False)
    head = lambda flags=0x0100, counts=(1, 0, 0, 0): struct.pack("!6H", 1, flags, *counts)
    body = spell("api.example.com") + struct.pack("!HH", 1, 1)
    option = b"\0" + struct.pack("!HHIH", 41, 1232, 0, 0)
    return {
        "nothing": b"",
        "one byte": b"\0",
        "half a head": good[:6],
        "no question": head(counts=(0, 0, 0, 0)),
        "a question that is missing": head(),
        "a cut question": good[:-3],
        "a name that points to itself": head() + b"\xc0\x0c" + struct.pack("!HH", 1, 1),
        "a name that points ahead": head() + b"\xc0\x20" + struct.pack("!HH", 1, 1) + b"\xc0\x0c" * 8,
        "a label of a reserved kind": head() + b"\x80abc\0" + struct.pack("!HH", 1, 1),
        "a name of 300 bytes": head() + spell(".".join(["a" * 60] * 5)) + struct.pack("!HH", 1, 1),
        "two questions": head(counts=(2, 0, 0, 0)) + body + body,
        "an answer": head(flags=0x8180) + body,
        "a notify": head(flags=0x2100) + body,
        "an update": head(flags=0x2800) + body,
        "a thousand records that are missing": head(counts=(1, 1000, 1000, 1000)) + body,
        "class chaos": head() + spell("version.bind") + struct.pack("!HH", 16, 3),
        "two EDNS records": head(counts=(1, 0, 0, 2)) + body + option + option,
        "EDNS of version 7": head(counts=(1, 0, 0, 1)) + body + b"\0" + struct.pack("!HHIH", 41, 1232, 7 << 16, 0),
        "an EDNS option that is too long": head(counts=(1, 0, 0, 1)) + body
        + b"\0" + struct.pack("!HHIH", 41, 1232, 0, 4) + struct.pack("!HH", 10, 999),
        "65,000 bytes": good + b"\xff" * 65000,
        "noise": bytes(hashlib.sha512(b"noise").digest() * 8),
    }


def garbage(server, name):
    """Every bad message on a socket of its own, over UDP and TCP, then a good question on either."""
    for what, message in bad_messages().items():
        client, to = make(server)
        client.settimeout(0.3)
        told = attempt(lambda: (client.sendto(message, to), read(client.recvfrom(65535)[0]))[1])
        tell(what=what, over="udp", **told)
        client, to = make(server, socket.SOCK_STREAM)
        client.settimeout(0.3)
        told = attempt(lambda: (client.connect(to), client.sendall(framed(message)), read(receive_framed(client)))[2])
        tell(what=what, over="tcp", **told)
    tell(what="good", over="udp", **attempt(lambda: over_udp(server, question(name))))
    tell(what="good", over="tcp", **attempt(lambda: over_tcp(server, question(name))))


def half(server, name):
    """Half a message on one connection does not keep another from its answer."""
    waiting, to = make(server, socket.SOCK_STREAM)
    waiting.connect(to)
    waiting.sendall(framed(question(name))[:9])
    tell(**attempt(lambda: over_tcp(server, question(name))))
    tell(**attempt(lambda: over_udp(server, question(name))))
    waiting.sendall(framed(question(name))[9:])
    tell(**attempt(lambda: read(receive_framed(waiting))))


def connections(count, server, name):
    """Opens connections, most of which never say anything, and asks on one of its own after every hundredth."""
    kept, answered, slowest = [], 0, 0.0
    for opened in range(int(count)):
        client, to = make(server, socket.SOCK_STREAM)
        told = attempt(lambda: client.connect(to) or {})
        if "error" in told:
            client.close()
        else:
            kept.append(client)
        if len(kept) > 800:
            kept.pop(0).close()
        if opened % 100 == 99:
            told = attempt(lambda: over_udp(server, question(name)))
            answered += told.get("code") == 0
            slowest = max(slowest, told["seconds"])
    tell(answered=answered, slowest=slowest)
    for client in kept:
        client.close()
    tell(**attempt(lambda: over_tcp(server, question(name))))


def tunnel(server, domain, count, length):
    """Carries data out in labels that look random, counts the codes of the answers, and tells the last one."""
    codes, told = {}, {}
    for number in range(int(count)):
        label = hashlib.sha256(str(number).encode()).hexdigest()[:int(length)]
        told = attempt(lambda: over_udp(server, question(f"{label}.{domain}", "A", number + 1)))
        code = str(told.get("code", told.get("error")))
        codes[code] = codes.get(code, 0) + 1
    tell(codes=codes, **told)


def first_connections(count, server, domain, port, threads):
    """Resolves a new name and connects to each of its addresses at once, over and over."""
    tally, lock = {"resolved": 0, "connected": 0, "failures": []}, threading.Lock()

    def work(worker):
        for number in range(worker, int(count), int(threads)):
            try:
                answer = over_udp(server, question(f"n{number}.{domain}", number=number % 65536))
                if not answer["addresses"]:
                    raise OSError(0, f"code {answer['code']}: {answer['text']}")
                for address in answer["addresses"]:
                    socket.create_connection((address, int(port)), TIMEOUT).close()
                with lock:
                    tally["resolved"] += 1
                    tally["connected"] += len(answer["addresses"])
            except OSError as error:
                with lock:
                    tally["failures"].append(f"n{number}: {error}")

    workers = [threading.Thread(target=work, args=(worker,)) for worker in range(int(threads))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    tally["failures"], tally["failed"] = tally["failures"][:10], len(tally["failures"])
    tell(**tally)


def handed_out(seconds, server, port, *names):
    """Resolves names over and over, and connects to every address that was ever handed out."""
    known, failures, connected, end = [], [], 0, time.monotonic() + float(seconds)
    at = 0
    while time.monotonic() < end:
        for name in names:
            answer = attempt(lambda: over_udp(server, question(name)))
            known += [address for address in answer.get("addresses", []) if address not in known]
        for _ in range(20):
            if not known:
                break
            at = (at + 1) % len(known)
            try:
                socket.create_connection((known[at], int(port)), TIMEOUT).close()
                connected += 1
            except OSError as error:
                failures.append(f"{known[at]}: {error}")
    tell(known=len(known), connected=connected, failed=len(failures), failures=failures[:10])


def listeners(name):
    """Asks every socket on loopback that this network namespace has, as if each were a name server."""
    asked = []
    for protocol in ("udp", "udp6", "tcp", "tcp6"):
        with open(f"/proc/net/{protocol}", encoding="ascii") as table:
            for line in list(table)[1:]:
                address, port = line.split()[1].split(":")
                if protocol.startswith("tcp") and line.split()[3] != "0A":
                    continue
                asked.append((protocol, "::1" if protocol.endswith("6") else "127.0.0.1", int(port, 16)))
    for protocol, host, port in asked:
        kind = socket.SOCK_DGRAM if protocol.startswith("udp") else socket.SOCK_STREAM
        client, _ = make(host, kind)
        client.settimeout(1.0)

        def ask():
            client.connect((host, port))
            if kind == socket.SOCK_DGRAM:
                client.send(question(name))
                return read(client.recv(65535))
            client.sendall(framed(question(name)))
            return read(receive_framed(client))
        tell(protocol=protocol, port=port, **attempt(ask))
    tell(protocol="none", port=0, asked=len(asked))


def until_dead(server, name, seconds):
    """Asks until nobody answers any more; the last line is the end.

    The first question without an answer may have been on its way when the other end died, so the one after it counts."""
    end = time.monotonic() + float(seconds)
    tell(**attempt(lambda: over_udp(server, question(name))))
    failures = 0
    while time.monotonic() < end:
        client, to = make(server)
        client.settimeout(0.5)
        told = attempt(lambda: (client.sendto(question(name), to), read(client.recvfrom(65535)[0]))[1])
        failures += "error" in told
        if failures == 2:
            break
        time.sleep(0.01)
    tell(dead="error" in told, **told)


def until_answered(server, name, seconds):
    """Asks until there is an address again."""
    end = time.monotonic() + float(seconds)
    told = {}
    while time.monotonic() < end:
        told = attempt(lambda: over_udp(server, question(name)))
        if told.get("addresses"):
            break
        time.sleep(0.05)
    tell(**told)


def flood(server, name, seconds):
    """As many questions for new names as fit, from one socket, and nothing is waited for."""
    client, to = make(server)
    client.setblocking(False)
    sent, end = 0, time.monotonic() + float(seconds)
    while time.monotonic() < end:
        try:
            client.sendto(question(f"f{sent}.{name}", number=sent % 65536), to)
            sent += 1
        except OSError:
            select.select([], [client], [], 0.01)
    tell(sent=sent)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
