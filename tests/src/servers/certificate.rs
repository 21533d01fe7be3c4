//! Certificates made for one test.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use crate::command::Spec;

/// A certificate with its key, and the authority that signed it and nothing else; all go when this is dropped.
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
        let text = format!(
            "[req]\ndistinguished_name = name\n[name]\n\
             [authority]\nbasicConstraints = critical, CA:TRUE\n\
             [server]\nbasicConstraints = critical, CA:FALSE\nsubjectAltName = {}\n",
            names.join(",")
        );
        let path = certificate.file("openssl.conf");
        fs::write(&path, text).with_context(|| format!("write `{}`", path.display()))?;
        certificate.make("authority", "authority", &certificate.authority(), |openssl| openssl)?;
        certificate.make("server", "key", &certificate.path(), |openssl| {
            openssl.arg("-CA").arg(certificate.authority()).arg("-CAkey").arg(certificate.file("authority.key"))
        })?;
        Ok(certificate)
    }

    /// The certificate.
    pub(super) fn path(&self) -> PathBuf {
        self.file("certificate.pem")
    }

    /// Its private key.
    pub(super) fn key(&self) -> PathBuf {
        self.file("key.key")
    }

    /// What whoever meets the certificate has to trust.
    pub(super) fn authority(&self) -> PathBuf {
        self.file("authority.pem")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn make(&self, kind: &str, key: &str, to: &PathBuf, sign: impl FnOnce(Spec) -> Spec) -> Result<()> {
        let openssl = Spec::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
            .arg("-config")
            .arg(self.file("openssl.conf"))
            .args(["-subj", &format!("/CN=egress tests {kind}"), "-extensions", kind, "-keyout"])
            .arg(self.file(&format!("{key}.key")))
            .arg("-out")
            .arg(to);
        sign(openssl).finish()?.expect_success().with_context(|| format!("make a certificate of kind `{kind}`"))
    }
}
