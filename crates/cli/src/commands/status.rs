//! `mainstay status`: at a glance, for each application: how recent, how whole, how proven.

use crate::{
    context::Context,
    exit::Exit,
    output,
    render::{failure, plain, point, table::Table, time},
};
use console::style;
use mainstay_domain::{Kind, Result};
use mainstay_operations::{
    access,
    config::Config,
    points::PointInfo,
    status::{self, AppStatus},
};

/// Show how each application stands: how recent, how whole, how proven
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only this application
    app: Option<String>,
    /// Exit with code 5 if anything is not as it should be
    #[arg(long)]
    check: bool,
}

pub fn run(args: Args, context: &Context) -> Result<Exit> {
    let config = context.config()?;
    let names: Vec<&str> = match &args.app {
        Some(app) => {
            access::app_of(&config, app)?;
            vec![app]
        }
        None => config.apps.keys().map(String::as_str).collect(),
    };
    let mut stand = Vec::new();
    let mut unknown = None;
    for app in names {
        match look(&config, app, context) {
            Ok(status) => stand.push(status),
            // One store that is away does not hide how the others stand.
            Err(failure) => {
                if let Some(earlier) = unknown.replace(failure.during(format_args!("{app} cannot be judged")))
                {
                    output::note(failure::text(&earlier));
                }
            }
        }
    }
    show(context, &stand);
    if let Some(failure) = unknown {
        return Err(failure);
    }
    let concerned = stand.iter().any(|app| !app.concerns.is_empty());
    Ok(if args.check && concerned { Exit::With(Kind::Objective) } else { Exit::Done })
}

fn look(config: &Config, app: &str, context: &Context) -> Result<AppStatus> {
    let repository = access::open(config, &access::repository_of(config, app)?, context.clock())?;
    status::of_app(config, &repository, app, context.clock().now())
}

fn show(context: &Context, stand: &[AppStatus]) {
    if stand.is_empty() {
        return;
    }
    let now = context.clock().now();
    let out = &context.output;
    let mut table = Table::new(&["APP", ">POINTS", "NEWEST", "STATE", "PROVEN", "RECOVERY TAKES"]);
    let age = |point: &Option<PointInfo>| match point {
        Some(point) => time::relative(point.summary.finished, now),
        None => "none".to_owned(),
    };
    for app in stand {
        let proof = app.newest_proven.as_ref().and_then(|point| point.proven());
        table.row([
            app.app.clone(),
            app.points.to_string(),
            age(&app.newest),
            app.newest.as_ref().map(|newest| point::state(newest.summary.state)).unwrap_or_default(),
            proof.map_or("never".to_owned(), |proof| time::relative(proof.at, now)),
            proof.map_or("not measured".to_owned(), |proof| {
                time::length(proof.restore_millis as i64 * 1_000_000)
            }),
        ]);
        out.json("status", app);
    }
    out.line(format_args!("{}\n", table.render()));
    if stand.iter().all(|app| app.concerns.is_empty()) {
        out.line("All is as it should be.");
    }
    for app in stand {
        for concern in &app.concerns {
            out.line(format_args!("{} {}: {}", style("!").yellow().bold(), plain(&app.app), plain(concern)));
        }
    }
}
