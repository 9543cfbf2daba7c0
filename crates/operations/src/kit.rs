//! The recovery kit of a repository: gathers what `keys::kit` prints.

use mainstay_domain::{Failure, Result};
use mainstay_keys::kit::{self, Kit};
use mainstay_repository::{
    Repository,
    rescue::{FIRST_ENTRY, Spares},
};
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

/// The objects in the text of a kit, for a store that has lost its own.
pub fn spares(text: &str) -> Result<Spares> {
    let hint = "Take the kit as text, the file that `mainstay init` wrote; from paper, type or scan that part again.";
    let unusable = |why: String| Failure::usage(format!("this is no whole recovery kit: {why}")).hint(hint);
    let objects = kit::objects(text).map_err(unusable)?;
    if !objects.iter().any(|(name, _)| name == "format") {
        return Err(unusable("the object `format` is not in it".into()));
    }
    Ok(Spares::new(objects))
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
    // Without its first entry a log that has no checkpoint yet cannot be followed.
    if repository.store().stat(FIRST_ENTRY)?.is_some() {
        names.push(FIRST_ENTRY.to_owned());
    }
    names.into_iter().map(|name| Ok((name.clone(), repository.store().read(&name)?))).collect()
}
