//! What may be given up by hand, whoever else is at work.

use super::*;
use crate::testing::{NOW, labelled, left, open, point, proof, store, with_parts, with_sources};
use mainstay_domain::point::SAFETY_COPY;

fn delete_all(repository: &Repository, chosen: &[PointInfo]) -> Result<()> {
    delete(repository, chosen, &|_, _| true, "me", "test", NOW, |_| {})
}

#[test]
fn points_that_go_together_are_judged_together() {
    let store = store();
    let here = open(&store);
    let points = [9, 5, 1].map(|age| point(&here, State::Complete, None, age));
    let refused = delete_all(&here, &points).unwrap_err();
    assert_eq!(refused.kind, Kind::Refused);
    assert_eq!(left(&store).len(), 3, "nothing was done before the refusal");
    let mut told = Vec::new();
    let twice_named = [points[0].clone(), points[1].clone(), points[0].clone()];
    delete(&here, &twice_named, &|_, _| true, "me", "test", NOW, |info| told.push(info.id)).unwrap();
    assert_eq!(told, [points[0].id, points[1].id]);
    assert_eq!(left(&store), [points[2].id]);
}

#[test]
fn a_safety_copy_is_no_backup_to_rely_on() {
    let store = store();
    let here = open(&store);
    let last = point(&here, State::Complete, None, 9);
    labelled(&here, State::Complete, None, 1, &[SAFETY_COPY]);
    let refused = delete_all(&here, std::slice::from_ref(&last)).unwrap_err();
    assert!(refused.message.contains("the last complete one"), "{refused}");
}

#[test]
fn what_another_host_did_since_counts() {
    let store = store();
    let (here, there) = (open(&store), open(&store));
    let [old, new] = [9, 1].map(|age| point(&here, State::Complete, None, age));
    delete_all(&there, std::slice::from_ref(&old)).unwrap();
    let refused = delete_all(&here, std::slice::from_ref(&new)).unwrap_err();
    assert_eq!(refused.kind, Kind::Refused, "the last complete one");
    let gone = delete_all(&here, std::slice::from_ref(&old)).unwrap_err();
    assert!(gone.message.contains("not there any more"), "{gone}");
    assert_eq!(left(&store), [new.id]);
}

#[test]
fn two_deletes_at_the_same_moment_leave_the_last_complete_and_the_last_proven_point() {
    for proven in [false, true] {
        let store = store();
        let (here, there) = (open(&store), open(&store));
        let [mine, theirs] = [9, 1].map(|age| point(&here, State::Complete, None, age));
        if proven {
            point(&here, State::Complete, None, 0);
            proof(&here, mine.id, true, NOW);
            proof(&here, theirs.id, true, NOW);
        }
        let together = BTreeSet::from([mine.id]);
        let mut judged = 0;
        let outcome = give_up(&here, mine.id, "me", "test", NOW, |state| {
            let verdict = expendable(state, &mine.id, &together, &BTreeSet::new(), NOW, &|_, _| true);
            judged += 1;
            if judged == 2 {
                // After this verdict and before its entry is written.
                delete_all(&there, std::slice::from_ref(&theirs)).unwrap();
            }
            verdict
        });
        assert_eq!((judged, outcome.unwrap_err().kind), (3, Kind::Refused));
        assert!(left(&store).contains(&mine.id));
    }
}

#[test]
fn a_hold_that_has_run_out_keeps_nothing() {
    let store = store();
    let here = open(&store);
    let [old, _] = [9, 1].map(|age| point(&here, State::Complete, None, age));
    let until = |end: Time| Hold {
        kind: "legal".into(),
        reason: "case 17".into(),
        by: "ann".into(),
        since: NOW.plus(-2),
        until: Some(end),
    };
    here.hold(old.id, until(NOW.plus(-1))).unwrap();
    let lasting = here.hold(old.id, until(NOW.plus(1))).unwrap();
    let refused = delete_all(&here, std::slice::from_ref(&old)).unwrap_err();
    assert!(refused.message.contains("legal: case 17"), "{refused}");
    here.release_hold(lasting, "ann", "closed").unwrap();
    delete_all(&here, std::slice::from_ref(&old)).unwrap();
    assert!(!left(&store).contains(&old.id));
}

#[test]
fn a_point_that_is_known_to_be_damaged_is_not_relied_on() {
    let store = store();
    let here = open(&store);
    let [good, bad] = [9, 1].map(|age| point(&here, State::Complete, None, age));
    let look = |level, passed, at| Proof { at, level, passed, restore_millis: 0, report: String::new() };
    here.record_proof(bad.id, look(ProofLevel::Packs, false, NOW)).unwrap();
    here.record_proof(bad.id, look(ProofLevel::Objects, true, NOW.plus(1))).unwrap();
    let refused = delete_all(&here, std::slice::from_ref(&good)).unwrap_err();
    assert!(refused.message.contains("the last complete one"), "{refused}");
    here.record_proof(bad.id, look(ProofLevel::Data, true, NOW.plus(2))).unwrap();
    delete_all(&here, std::slice::from_ref(&good)).unwrap();
}

#[test]
fn the_last_proven_point_of_a_source_stays_as_long_as_the_source_is_backed_up() {
    let store = store();
    let here = open(&store);
    let both = with_sources(&here, State::Complete, None, 9, &["db", "uploads"]);
    let uploads = with_sources(&here, State::Complete, None, 5, &["uploads"]);
    with_sources(&here, State::Complete, None, 1, &["db", "uploads"]);
    proof(&here, both.id, true, NOW);
    proof(&here, uploads.id, true, NOW);
    let refused = delete_all(&here, std::slice::from_ref(&both)).unwrap_err();
    assert!(refused.message.ends_with("the last proven one of shop with db"), "{refused}");
    delete(&here, &[both], &|_, source| source != "db", "me", "test", NOW, |_| {}).unwrap();
}

#[test]
fn a_point_that_leaves_a_part_out_is_no_copy_of_one_that_has_all() {
    let store = store();
    let here = open(&store);
    let all = with_sources(&here, State::Complete, None, 9, &["db"]);
    let part = with_parts(&here, 5, &["db"]);
    let newer_part = with_parts(&here, 1, &["db"]);
    let refused = delete_all(&here, std::slice::from_ref(&all)).unwrap_err();
    assert!(refused.message.contains("the last one of shop with all of db"), "{refused}");
    delete_all(&here, std::slice::from_ref(&newer_part)).unwrap();

    // The whole holds the part, but not the other way round: nor is the proof of one that of the other.
    proof(&here, all.id, true, NOW);
    proof(&here, part.id, true, NOW);
    let newer = with_sources(&here, State::Complete, None, 0, &["db"]);
    let refused = delete_all(&here, std::slice::from_ref(&all)).unwrap_err();
    assert!(refused.message.ends_with("the last proven one of shop with db"), "{refused}");
    proof(&here, newer.id, true, NOW);
    delete_all(&here, &[all, part]).unwrap();
    assert_eq!(left(&store), [newer.id]);
}
