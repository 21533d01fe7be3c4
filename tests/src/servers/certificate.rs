//! Certificates made for one test.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use crate::command::Spec;

/// A certificate that signs itself, with its key; both go when this is dropped.
#[derive(Debug)]
pub(super) struct Certificate {
    directory: TempDir,
}

impl Certificate {
    /// A certificate of these names.
    pub(super) fn for_names(names: &[&str]) -> Result<Self> {
        let directory = TempDir::with_prefix("egress-certificate-").context("make a directory for a certificate")?;
        let certificate = Self { directory };
        let names: Vec<String> = names.iter().map(|name| format!("DNS:{name}")).collect();
        Spec::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
            .args(["-subj", "/CN=egress tests", "-addext"])
            .arg(format!("subjectAltName={}", names.join(",")))
            .arg("-keyout")
            .arg(certificate.key())
            .arg("-out")
            .arg(certificate.path())
            .finish()?
            .expect_success()
            .context("make a certificate")?;
        Ok(certificate)
    }

    /// The certificate, which is also what to trust.
    pub(super) fn path(&self) -> PathBuf {
        self.directory.path().join("certificate.pem")
    }

    /// Its private key.
    pub(super) fn key(&self) -> PathBuf {
        self.directory.path().join("key.pem")
    }
}
