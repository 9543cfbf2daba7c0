//! What is found is said, whoever cannot be told.

use super::*;
use crate::{
    points,
    testing::{open, open_over, point, store},
};
use mainstay_domain::{Silent, point::State};
use mainstay_stores::{FailingStore, Fault, Verb};
use std::sync::Arc;

#[test]
fn a_store_that_takes_no_writes_is_looked_at_all_the_same() {
    let memory = store();
    let info = point(&open(&memory), State::Complete, None, 1);
    let unwritable = FailingStore::new(memory.clone(), |attempt| {
        (attempt.verb == Verb::Create).then_some(Fault::Unavailable)
    });
    let repository = open_over(Arc::new(unwritable));
    let look = || check(&repository, std::slice::from_ref(&info), ProofLevel::Packs, &Silent).unwrap();
    assert!(look().is_clean(), "healthy, and not recorded");
    memory.overwrite(&format!("manifests/{}", info.id), b"damage");
    assert_eq!(look().findings.len(), 1);
    assert!(points::list(&open(&memory), None).unwrap()[0].proofs.is_empty());
}

#[test]
fn of_a_point_that_is_given_up_meanwhile_nothing_is_said() {
    let memory = store();
    let repository = open(&memory);
    let [old, new] = [9, 1].map(|age| point(&repository, State::Complete, None, age));
    open(&memory).drop_point(old.id, "test", "expired").unwrap();
    memory.overwrite(&format!("manifests/{}", old.id), b"as good as gone");
    let report = check(&repository, &[old, new.clone()], ProofLevel::Data, &Silent).unwrap();
    assert!(report.is_clean(), "{:?}", report.findings);
    let listed = points::list(&open(&memory), None).unwrap();
    assert!(listed.len() == 1 && listed[0].id == new.id && listed[0].proofs[&ProofLevel::Data].passed);
}
