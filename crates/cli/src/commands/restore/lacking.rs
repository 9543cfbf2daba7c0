//! What the repository has lost of what is to be restored, shown with the plan: nobody shall learn it from the restore itself.

use crate::{context::Context, exit::Exit, render::plain};
use mainstay_domain::{Kind, Result};
use mainstay_operations::restore::{Lacking, Opened};

/// More streams than are named.
const SHOWN: usize = 10;

/// Shows what would not come back; whether there is anything. A dry run looks for every pack; a restore that is under way, which
/// finds out by itself, only says what is known.
pub fn show(context: &Context, opened: &Opened<'_>, dry_run: bool) -> Result<bool> {
    Ok(tell(context, &opened.point.summary.app, &opened.lacking(dry_run, &context.progress)?))
}

/// Plans a restore; a plan that cannot be made may fail for what is lost, which is shown then.
pub fn plan<T>(
    context: &Context,
    opened: &Opened<'_>,
    dry_run: bool,
    plan: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let planned = plan();
    if planned.is_err() {
        show(context, opened, dry_run)?;
    }
    planned
}

fn tell(context: &Context, app: &str, lacking: &[Lacking]) -> bool {
    let out = &context.output;
    for lost in lacking.iter().take(SHOWN) {
        let of = match lost.packs.as_slice() {
            [] => "its list leads to what is lost".to_owned(),
            packs => format!("lost: {}", packs.join(", ")),
        };
        out.line(format_args!("  cannot be read whole: {} ({of})", lost.stream));
    }
    if lacking.len() > SHOWN {
        out.line(format_args!("  cannot be read whole: and {} more", lacking.len() - SHOWN));
    }
    for lost in lacking {
        out.json("lacking", &serde_json::json!({ "stream": lost.stream, "packs": lost.packs }));
    }
    if !lacking.is_empty() {
        out.line(format_args!(
            "  The rest can be restored, and what does not come is named then; `mainstay verify {}` says which points are whole.\n",
            plain(app)
        ));
    }
    !lacking.is_empty()
}

/// How a dry run ends whose plan has nothing against it.
pub fn exit(is_lacking: bool) -> Exit {
    if is_lacking { Exit::With(Kind::Verification) } else { Exit::Done }
}
