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
    let pool = Pool::open(&args.pool, WhenMissing::Refuse, talk)?;
    block_on(async {
        let plan = Plan::make(&pool, &args.prefix).await?;
        if plan.is_empty() {
            let prefix = args.prefix.escape_debug();
            return Err(
                Negative(format!("no object in {} starts with `{prefix}`", pool.target)).into()
            );
        }
        let warnings = [plan.surprises(), plan.objections()].concat();
        // Part of the question, not of the output: a reader of stdout that goes away must not stop a deletion half-way.
        if !(args.dry_run || args.yes && args.quiet) {
            talk.show(&plan.text());
        }
        for warning in &warnings {
            talk.warn(&format!("note: {warning}"));
        }
        if !args.dry_run {
            permit(args, &plan)?;
        }
        let mut document = Document {
            pool: pool.target.to_string(),
            prefix: args.prefix.clone(),
            dry_run: args.dry_run,
            images: Vec::new(),
            foreign: plan.foreign,
            total: plan.total(),
            warnings,
            deleted: 0,
        };
        if args.dry_run {
            return report_plan(args, document, plan);
        }
        let Plan { images, superblocks, others, .. } = plan;
        document.images = images;
        let outcome = delete::delete(&pool, [superblocks, others], talk).await;
        document.deleted = outcome.deleted;
        if let Some(error) = outcome.error {
            let done = human::count(outcome.deleted, "object");
            bail!("stopped after {done}: {error}; run it again to go on");
        }
        if args.json {
            print_json(&document)?;
        } else {
            print_text(&format!("deleted {}\n", human::count(document.deleted, "object")))?;
        }
        Ok(Answer::Done)
    })
}

fn report_plan(args: &Args, mut document: Document, plan: Plan) -> anyhow::Result<Answer> {
    if args.json {
        document.images = plan.images;
        print_json(&document)?;
    } else {
        print_text(&plan.text())?;
    }
    Ok(Answer::Done)
}

/// Ends the program unless deleting is allowed and wanted.
fn permit(args: &Args, plan: &Plan) -> anyhow::Result<()> {
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
