//! The recovery kit of a repository: gathers what `keys::kit` prints.

use mainstay_domain::Result;
use mainstay_keys::kit::Kit;
use mainstay_repository::Repository;
use std::ops::ControlFlow;
use zeroize::Zeroizing;

/// The two forms of a kit. Neither holds the key.
pub struct Printed {
    pub text: Zeroizing<String>,
    pub html: Zeroizing<String>,
}

/// Makes the kit of the repository that the configuration calls `name`, with the addresses of its stores.
pub fn print(repository: &Repository, name: &str, stores: &[String]) -> Result<Printed> {
    let objects = objects(repository)?;
    let format = repository.format();
    let kit =
        Kit { name, root: *format.root(), created: format.created, stores, objects: &objects, key: None };
    Ok(Printed { text: kit.text(), html: kit.html() })
}

/// The small objects that a kit repeats, as they lie in the store.
fn objects(repository: &Repository) -> Result<Vec<(String, Vec<u8>)>> {
    let mut names = vec!["format".to_owned()];
    for prefix in ["trust/", "keys/"] {
        let first = names.len();
        repository.store().list(prefix, &mut |listed| {
            names.push(listed.name);
            ControlFlow::Continue(())
        })?;
        names[first..].sort();
    }
    names.into_iter().map(|name| Ok((name.clone(), repository.store().read(&name)?))).collect()
}
