//! A repository is made, or it is not; in between it is neither used nor lost sight of.

use crate::support::*;
use mainstay_domain::{Failure, Kind};
use mainstay_repository::{Repository, RepositoryError};
use mainstay_stores::{FailingStore, Fault, LocalStore, MemoryStore, Store, Verb};
use std::sync::Arc;

fn init(store: Arc<dyn Store>) -> Result<(), RepositoryError> {
    Repository::init(&access(store), "test", CHUNKING).map(|_| ())
}

fn works(memory: &MemoryStore, case: &str) {
    let store: Arc<dyn Store> = Arc::new(memory.clone());
    let made = back_up(&open(&store), &[("a", noise(1, 20_000))]);
    assert!(read(&open(&store), &made.point, 0).unwrap() == noise(1, 20_000), "{case}");
}

#[test]
fn what_an_init_leaves_that_was_killed_is_recognised_and_named_and_makes_room_for_another() {
    let mut half_made = 0;
    for took_effect in [false, true] {
        for at in 0.. {
            let memory = MemoryStore::new();
            let dying = FailingStore::dying_at(memory.clone(), at, took_effect);
            let outcome = init(Arc::new(dying.clone()));
            let case = format!("died at {at}, took effect: {took_effect}");
            let names = memory.names();
            if names.iter().any(|name| name == "format") {
                works(&memory, &case);
                let again = Failure::from(init(Arc::new(memory.clone())).unwrap_err());
                assert!(again.message.contains("already a repository"), "{case}: {again}");
            } else {
                let opened = Repository::open(access(Arc::new(memory.clone())), None).err().unwrap();
                assert_eq!(Failure::from(opened).kind, Kind::NoRepository, "{case}");
                if !names.is_empty() {
                    half_made += 1;
                    let refused = Failure::from(init(Arc::new(memory.clone())).unwrap_err());
                    assert!(names.iter().all(|name| refused.message.contains(name)), "{case}: {refused}");
                    assert!(refused.hint.unwrap().contains("Remove these objects"), "{case}");
                    names.iter().for_each(|name| memory.delete(name).unwrap());
                }
                init(Arc::new(memory.clone())).unwrap();
                works(&memory, &case);
            }
            if !dying.is_dead() {
                outcome.unwrap();
                break;
            }
        }
    }
    assert_eq!(half_made, 6, "after each of three objects, and before each but the first");
}

#[test]
fn a_lost_answer_to_any_create_of_an_init_is_settled() {
    for took_effect in [false, true] {
        for nth in 0..4 {
            let memory = MemoryStore::new();
            let mut creates = 0;
            let flaky = FailingStore::new(memory.clone(), move |attempt| {
                let hit = attempt.verb == Verb::Create && creates == nth;
                creates += usize::from(attempt.verb == Verb::Create);
                hit.then_some(Fault::LostAnswer { took_effect })
            });
            init(Arc::new(flaky)).unwrap();
            works(&memory, &format!("answer {nth}, took effect: {took_effect}"));
        }
    }
}

#[test]
fn a_folder_with_other_things_is_no_half_made_repository() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("log")).unwrap();
    std::fs::write(folder.path().join("log/web.log"), b"GET /").unwrap();
    let refused = Failure::from(init(Arc::new(LocalStore::new(folder.path()))).unwrap_err());
    assert!(refused.message.contains("other things"), "{refused}");
}
