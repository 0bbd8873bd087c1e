//! `remove-objs`: deletes the objects of a pool whose names start with a prefix.
#![forbid(unsafe_code)]

mod args;
mod delete;
mod plan;

use std::process::ExitCode;

use anyhow::bail;
use lsvd_cli::{
    Answer, Consent, Negative, Pool, Talk, WhenMissing, ask, block_on, human, main_with,
    print_json, print_text,
};
use serde::Serialize;

use crate::args::{Args, LowArgs};
use crate::plan::{Amount, Image, Plan};

const TOOL: &str = "remove-objs";

fn main() -> ExitCode {
    main_with(TOOL, |low: LowArgs| run(&low.resolve()?))
}

#[derive(Serialize)]
struct Document {
    pool: String,
    prefix: String,
    dry_run: bool,
    images: Vec<Image>,
    foreign: Amount,
    total: Amount,
    warnings: Vec<String>,
    deleted: u64,
}

fn run(args: &Args) -> anyhow::Result<Answer> {
    let talk = Talk::new(TOOL, args.quiet);
    let pool = Pool::open(&args.pool, &args.ceph.environment(), WhenMissing::Refuse, talk)?;
    block_on(async {
        let plan = Plan::make(&pool, &args.prefix).await?;
        if plan.is_empty() {
            let prefix = args.prefix.escape_debug();
            let no = format!("no object in {} starts with `{prefix}`", pool.target);
            return Err(Negative(no).into());
        }
        let warnings = [plan.surprises(), plan.objections()].concat();
        for warning in &warnings {
            talk.warn(&format!("note: {warning}"));
        }
        let mut document = Document {
            pool: pool.target.to_string(),
            prefix: args.prefix.clone(),
            dry_run: args.dry_run,
            foreign: plan.foreign,
            total: plan.total(),
            warnings,
            deleted: 0,
            images: Vec::new(),
        };
        let text = if args.dry_run {
            plan.text()
        } else {
            permit(args, &plan, talk)?;
            let outcome = delete::delete(&pool, [plan.superblocks, plan.others], talk).await;
            let done = human::count(outcome.deleted, "object");
            if let Some(error) = outcome.error {
                bail!("stopped after {done}: {error}; run it again to go on");
            }
            document.deleted = outcome.deleted;
            format!("deleted {done}\n")
        };
        document.images = plan.images;
        if args.json {
            print_json(&document)?
        } else {
            print_text(&text)?
        }
        Ok(Answer::Done)
    })
}

/// Ends the program unless deleting is allowed and wanted.
fn permit(args: &Args, plan: &Plan, talk: Talk) -> anyhow::Result<()> {
    // On stderr, as a part of the question: a reader of stdout that goes away must not stop a
    // deletion.
    if !(args.yes && args.quiet) {
        talk.show(&plan.text());
    }
    let objections = plan.objections();
    if !objections.is_empty() && !args.force {
        let objections = objections.join("; ");
        let no = format!("{objections}; nothing was deleted; --force deletes all the same");
        return Err(Negative(no).into());
    }
    if args.yes {
        return Ok(());
    }
    let Amount { objects, bytes } = plan.total();
    let amount = format!("{}, {}", human::count(objects, "object"), human::bytes(bytes));
    match ask(&format!("Delete {amount}?"))? {
        Consent::Yes => Ok(()),
        Consent::No => Err(Negative("nothing was deleted".to_owned()).into()),
        Consent::NobodyThere => {
            bail!("delete {amount}? nobody to ask; say so with --yes (nothing was deleted)")
        }
    }
}
