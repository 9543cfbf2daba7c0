//! The signed report behind a proof. The log says that a test was made and how it ended; the report says what was found, and
//! only while it is there, whole and about this very point is the log's word more than a word.

use mainstay_domain::{PointId, Result, point::Proof};
use mainstay_repository::{Repository, RepositoryError, proof};
use serde_json::Value;

#[derive(Debug, Clone, PartialEq)]
pub enum Kept {
    /// The signature holds, and the report says of this point what the log says.
    Signed(Value),
    Missing,
    /// Why it cannot be believed.
    Damaged(String),
}

/// Reads the report of a proof; `None` if it is of a look that leaves none.
pub fn kept(repository: &Repository, point: &PointId, proof: &Proof) -> Result<Option<Kept>> {
    if proof.report.is_empty() {
        return Ok(None);
    }
    Ok(Some(match proof::read(repository, &proof.report) {
        Ok(text) => judge(&text, point, proof),
        Err(RepositoryError::Store(error)) if error.is_not_found() => Kept::Missing,
        Err(error) if error.is_damage() => Kept::Damaged(error.to_string()),
        Err(error) => return Err(error.into()),
    }))
}

fn judge(text: &str, point: &PointId, proof: &Proof) -> Kept {
    let Ok(report) = serde_json::from_str::<Value>(text) else {
        return Kept::Damaged(format!("{} is not a report", proof.report));
    };
    if report["point"].as_str() != Some(&point.to_string()) {
        return Kept::Damaged(format!("{} is about another recovery point", proof.report));
    }
    if (report["verdict"] == "passed") != proof.passed {
        return Kept::Damaged(format!("{} says something else than the log", proof.report));
    }
    Kept::Signed(report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_domain::{Time, point::ProofLevel};

    #[test]
    fn a_report_is_believed_of_its_own_point_and_only_if_it_says_what_the_log_says() {
        let (one, two) = (PointId([1; 32]), PointId([2; 32]));
        let proof = |passed| Proof {
            at: Time(1),
            level: ProofLevel::Restore,
            passed,
            restore_millis: 1,
            report: "proofs/x".into(),
        };
        let text = format!("{{\"point\": \"{one}\", \"verdict\": \"passed\"}}");
        assert!(matches!(judge(&text, &one, &proof(true)), Kept::Signed(_)));
        for wrong in [
            judge(&text, &two, &proof(true)),
            judge(&text, &one, &proof(false)),
            judge("{}", &one, &proof(true)),
            judge("?", &one, &proof(true)),
        ] {
            assert!(matches!(&wrong, Kept::Damaged(why) if why.contains("proofs/x")), "{wrong:?}");
        }
    }
}
