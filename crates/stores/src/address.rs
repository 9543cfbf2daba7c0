//! Addresses of stores: which store a URL means.

use crate::{LocalStore, Store};
use mainstay_domain::{Failure, Kind};
use std::{
    ffi::OsString,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

/// The address does not name a store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error("{0:?} is not the address of a store")]
    NotAnAddress(String),
    #[error("{0:?} does not name a folder from the root on")]
    NotAbsolute(String),
    #[error("{address:?} begins with {scheme:?}, and there is no store of that kind")]
    UnknownScheme { address: String, scheme: String },
}

impl AddressError {
    fn hint(&self) -> String {
        match self {
            AddressError::NotAnAddress(text) if text.starts_with('/') => {
                format!("Write it as a URL: {}", of_path(Path::new(text)))
            }
            AddressError::NotAnAddress(_) => "Write a URL, such as file:///var/lib/mainstay.".to_owned(),
            AddressError::NotAbsolute(_) => {
                "Write three slashes and the whole path, such as file:///var/lib/mainstay.".to_owned()
            }
            AddressError::UnknownScheme { .. } => {
                "This version knows file:///FOLDER, for a folder on a disk or a mounted share.".to_owned()
            }
        }
    }
}

impl From<AddressError> for Failure {
    fn from(error: AddressError) -> Failure {
        Failure::new(Kind::Usage, error.to_string()).hint(error.hint())
    }
}

/// The store at an address: `file:///FOLDER` (`%20` and the like are decoded). Does no input or output.
pub fn open(address: &str) -> Result<Box<dyn Store>, AddressError> {
    let Some((scheme, rest)) = address.split_once("://") else {
        return Err(match address.split_once(':') {
            Some(("file", _)) => AddressError::NotAbsolute(address.to_owned()),
            _ => AddressError::NotAnAddress(address.to_owned()),
        });
    };
    match scheme {
        "file" => {
            let path = rest.strip_prefix("localhost").unwrap_or(rest);
            if !path.starts_with('/') {
                return Err(AddressError::NotAbsolute(address.to_owned()));
            }
            let path = decode(path).ok_or_else(|| AddressError::NotAnAddress(address.to_owned()))?;
            Ok(Box::new(LocalStore::new(path)))
        }
        _ => {
            Err(AddressError::UnknownScheme { address: without_secrets(address), scheme: scheme.to_owned() })
        }
    }
}

/// The address of a folder.
pub(crate) fn of_path(path: &Path) -> String {
    let mut address = String::from("file://");
    for &byte in path.as_os_str().as_bytes() {
        match byte {
            b'%' | b'?' | b'#' | 0..=b' ' | 0x7f.. => address += &format!("%{byte:02X}"),
            _ => address.push(byte.into()),
        }
    }
    address
}

fn decode(path: &str) -> Option<PathBuf> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = match (first, tail) {
            (b'%', [high, low, tail @ ..]) => {
                let digit = |c: &u8| char::from(*c).to_digit(16);
                bytes.push((digit(high)? * 16 + digit(low)?) as u8);
                tail
            }
            (b'%', _) => return None,
            _ => {
                bytes.push(*first);
                tail
            }
        };
    }
    (!bytes.contains(&0)).then(|| PathBuf::from(OsString::from_vec(bytes)))
}

/// Some addresses carry a user and password, or keys after `?`: neither is shown.
fn without_secrets(address: &str) -> String {
    let end = address.find(['?', '#']).unwrap_or(address.len());
    match address[..end].split_once("://") {
        Some((scheme, rest)) => {
            let host = rest.split('/').next().unwrap_or(rest);
            let user = host.rfind('@').map_or(0, |at| at + 1);
            format!("{scheme}://{}", &rest[user..])
        }
        None => address[..end].to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(address: &str) -> String {
        let failure = Failure::from(open(address).err().unwrap());
        assert_eq!(failure.kind, Kind::Usage);
        format!("{failure}. {}", failure.hint.as_deref().unwrap())
    }

    #[test]
    fn a_folder_is_addressed_by_its_whole_path() {
        for (address, shown) in [
            ("file:///var/lib/mainstay", "file:///var/lib/mainstay"),
            ("file://localhost/srv", "file:///srv"),
            ("file:///mnt/my%20disk", "file:///mnt/my%20disk"),
        ] {
            assert_eq!(open(address).unwrap().describe(), shown);
        }
    }

    #[test]
    fn a_wrong_address_is_refused_with_what_to_write() {
        assert_eq!(
            refusal("/srv/my backups"),
            "\"/srv/my backups\" is not the address of a store. Write it as a URL: file:///srv/my%20backups"
        );
        assert_eq!(
            refusal("file://backups"),
            "\"file://backups\" does not name a folder from the root on. Write three slashes and the whole path, such as \
             file:///var/lib/mainstay."
        );
        assert!(refusal("file:/backups").contains("three slashes"));
        assert!(refusal("").contains("Write a URL"));
        assert!(refusal("file:///a%2").contains("is not the address"));
    }

    #[test]
    fn an_unknown_kind_of_store_is_named_without_its_secrets() {
        assert_eq!(
            refusal("ftp://user:secret@host/x?token=secret"),
            "\"ftp://host/x\" begins with \"ftp\", and there is no store of that kind. This version knows file:///FOLDER, for \
             a folder on a disk or a mounted share."
        );
    }
}
