//! Authorities, certificates and keys, made by openssl.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, process::Command};

/// A folder of them: `ca` and `other` are authorities; `server` (for db.test) and `client` are signed by `ca`.
pub struct Certificates {
    directory: tempfile::TempDir,
}

impl Certificates {
    pub fn make() -> Certificates {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let made = Certificates { directory };
        for ca in ["ca", "other"] {
            made.openssl(&[
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-days",
                "2",
                "-subj",
                &format!("/CN=authority {ca}"),
                "-keyout",
                &format!("{ca}.key"),
                "-out",
                &format!("{ca}.crt"),
            ]);
        }
        made.issue("server", "db.test", "subjectAltName=DNS:db.test");
        made.issue("client", "certified", "extendedKeyUsage=clientAuth");
        made
    }

    pub fn issue(&self, name: &str, subject: &str, extension: &str) {
        fs::write(self.path("ext"), extension).unwrap();
        let (key, csr, crt) = (format!("{name}.key"), format!("{name}.csr"), format!("{name}.crt"));
        self.openssl(&[
            "req",
            "-new",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-384",
            "-nodes",
            "-subj",
            &format!("/CN={subject}"),
            "-keyout",
            &key,
            "-out",
            &csr,
        ]);
        self.openssl(&[
            "x509",
            "-req",
            "-in",
            &csr,
            "-CA",
            "ca.crt",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "2",
            "-sha384",
            "-extfile",
            "ext",
            "-out",
            &crt,
        ]);
    }

    fn openssl(&self, arguments: &[&str]) {
        let output =
            Command::new("openssl").args(arguments).current_dir(self.directory.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}
