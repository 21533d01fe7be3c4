//! `cargo xtask bench`: measurements that compare, in one run, on one machine.
//!
//! - `bench dns [--quick] [--json FILE]`: cached answers through `egress`, beside other forwarders.
//! - `bench load SERVER RATE QUESTIONS NAMES`: the load of the former, as a program of its own that can be governed.

mod dns;
mod load;
mod report;
mod statistics;

use std::{
    fs,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context as _, Result, bail};

use crate::{dns::Extent, load::Load};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(io::stderr(), "bench: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[&str]) -> Result<()> {
    match words {
        ["load", server, rate, questions, names] => {
            let load = Load {
                server: server.parse().context("read the server")?,
                rate: rate.parse().context("read the rate")?,
                questions: questions.parse().context("read the number of questions")?,
                names: names.parse().context("read the number of names")?,
            };
            serde_json::to_writer(io::stdout().lock(), &load::run(&load)?).context("write what was measured")
        }
        ["dns", options @ ..] => {
            let (mut extent, mut json, mut options) = (Extent::FULL, None, options.iter());
            while let Some(option) = options.next() {
                match *option {
                    "--quick" => extent = Extent::QUICK,
                    "--json" => json = Some(PathBuf::from(options.next().context("`--json` needs a file")?)),
                    other => bail!("unknown option `{other}`"),
                }
            }
            let report = dns::run(extent)?;
            let Some(path) = json else { return Ok(()) };
            let text = serde_json::to_string_pretty(&report).context("write the report")?;
            fs::write(&path, text + "\n").with_context(|| format!("write `{}`", path.display()))
        }
        other => bail!("expected `dns` or `load`, not {other:?}"),
    }
}
