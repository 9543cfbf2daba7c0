//! `mainstay hold`: keep a recovery point whatever retention says.

use super::point;
use crate::{
    context::Context,
    exit::Exit,
    render::{plain, table::Table, time},
};
use mainstay_domain::{Result, time::Span};
use mainstay_operations::manage;
use serde_json::json;

/// Keep a recovery point whatever the policies say: for an investigation, a migration, a court
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Hold a recovery point
    Add {
        #[arg(help = point::HELP)]
        point: String,
        /// Why; it stands in the list and in every refusal
        #[arg(long)]
        reason: String,
        /// legal, incident, migration, or a word of your own
        #[arg(long, default_value = "incident")]
        kind: String,
        /// For how long (30d, 1y); without it, until it is released
        #[arg(long = "for", value_name = "TIME")]
        span: Option<Span>,
    },
    /// List the holds on a recovery point
    List {
        #[arg(help = point::HELP)]
        point: String,
    },
    /// Release the holds on a recovery point
    Release {
        #[arg(help = point::HELP)]
        point: String,
        /// Why
        #[arg(long)]
        reason: String,
        /// Only the hold whose id begins so
        #[arg(long, value_name = "ID")]
        hold: Option<String>,
    },
}

pub fn run(args: Args, context: &Context) -> Result<Exit> {
    let config = context.config()?;
    let by = super::whoami();
    match args.action {
        Action::Add { point, reason, kind, span } => {
            let chosen = point::choose(context, &config, &point)?;
            let id =
                manage::hold(&chosen.repository, &chosen.info, &kind, &reason, &by, span, &*context.clock())?;
            context
                .output
                .line(format_args!("Recovery point {} is held ({kind}: {reason}).", chosen.info.id.short()));
            context.output.json("hold", &json!({ "hold": id.to_string(), "point": chosen.info.id }));
        }
        Action::List { point } => {
            let chosen = point::choose(context, &config, &point)?;
            let mut table = Table::new(&["HOLD", "KIND", "REASON", "BY", "SINCE", "UNTIL"]);
            for (id, hold) in manage::holds(&chosen.repository, &chosen.info)? {
                table.row([
                    id.short(),
                    plain(&hold.kind),
                    plain(&hold.reason),
                    plain(&hold.by),
                    time::local_short(hold.since),
                    hold.until.map_or("it is released".to_owned(), time::local_short),
                ]);
                context.output.json(
                    "hold",
                    &json!({ "hold": id.to_string(), "point": chosen.info.id, "detail": hold }),
                );
            }
            context.output.line(if table.is_empty() {
                "There is no hold on it.".to_owned()
            } else {
                table.render()
            });
        }
        Action::Release { point, reason, hold } => {
            let chosen = point::choose(context, &config, &point)?;
            let released = manage::release(&chosen.repository, &chosen.info, hold.as_deref(), &by, &reason)?;
            let short = chosen.info.id.short();
            context.output.line(format_args!("{released} released; retention decides about {short} again."));
            context.output.json("released", &json!({ "point": chosen.info.id, "holds": released }));
        }
    }
    Ok(Exit::Done)
}
