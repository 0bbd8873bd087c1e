//! A report as text for people.

use std::fmt::Write as _;

use lsvd_cli::human;

use crate::report::{Format, Part, Report, Structure, Table, Value};

/// Bytes of a raw value that are shown; the rest is in `--json` and `--hex`.
const RAW_DIGITS_MAX: usize = 32;

/// Checks that hold and are listed one by one; more are only counted.
const CHECKS_LISTED_MAX: usize = 12;

/// The report as text, ending with the verdict.
#[must_use]
pub fn text(report: &Report) -> String {
    let mut out = String::new();
    let size = human::exact_bytes(report.bytes);
    // Escaped: a file's name may hold anything, and this ends in a terminal.
    let source = report.source.escape_debug();
    push(&mut out, &format!("{source}: {}, {size}", report.format.words()));
    for part in &report.parts {
        out.push('\n');
        match part {
            Part::Structure(structure) => push_structure(&mut out, structure),
            Part::Table(table) => push_table(&mut out, table),
        }
    }
    out.push('\n');
    push_checks(&mut out, report);
    for note in &report.notes {
        push(&mut out, note);
    }
    if let Some(stopped) = &report.stopped {
        push(&mut out, &format!("stopped at byte {}: {}", stopped.at, stopped.why));
    }
    let verdict = match (report.format, report.whole) {
        (Format::Unknown, _) => "not recognised",
        (_, true) => "nothing wrong was found",
        (_, false) => "DAMAGED, see above",
    };
    push(&mut out, verdict);
    out
}

fn push(out: &mut String, line: &str) {
    out.push_str(line.trim_end());
    out.push('\n');
}

fn push_structure(out: &mut String, structure: &Structure) {
    let Structure { name, layout, offset, size, .. } = structure;
    push(out, &format!("{name} ({layout}), {size} bytes at {offset}"));
    let mut table = lsvd_cli::table(["at", "size", "field", "raw", "value", "meaning"]);
    for field in &structure.fields {
        table.add_row([
            field.offset.to_string(),
            field.size.to_string(),
            field.name.to_owned(),
            shortened(&field.raw),
            field.shown.clone(),
            field.meaning.to_owned(),
        ]);
    }
    push_lines(out, &table);
}

fn push_table(out: &mut String, table: &Table) {
    let Table { name, layout, offset, count, rows } = table;
    let layout = if layout.is_empty() { String::new() } else { format!(" ({layout})") };
    let shown = rows.len() as u64;
    let more = match count.checked_sub(shown) {
        Some(missing) if missing > 0 => format!(", {shown} shown; --all shows the others"),
        _ => String::new(),
    };
    push(out, &format!("{name}{layout}, {} at {offset}{more}", human::count(*count, "row")));
    let Some(first) = rows.first() else { return };
    let mut lines = lsvd_cli::table([""; 0]);
    let mut header = vec!["at"];
    header.extend(first.values.iter().map(|(name, _)| *name));
    header.push("meaning");
    lines.set_header(header);
    for row in rows {
        let mut cells = vec![row.offset.to_string()];
        cells.extend(row.values.iter().map(|(name, value)| cell(name, value)));
        cells.push(row.meaning.clone());
        lines.add_row(cells);
    }
    push_lines(out, &lines);
}

fn cell(name: &str, value: &Value) -> String {
    match value {
        Value::Number(number) if name.ends_with("crc") || name == "fingerprint" => {
            format!("{number:08x}")
        }
        Value::Number(number) => number.to_string(),
        Value::Text(text) => shortened(text),
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(RAW_DIGITS_MAX + 8) {
        Some(_) => text.chars().take(RAW_DIGITS_MAX).chain("...".chars()).collect(),
        None => text.to_owned(),
    }
}

fn push_lines(out: &mut String, table: &impl std::fmt::Display) {
    for line in table.to_string().lines() {
        push(out, line);
    }
}

fn push_checks(out: &mut String, report: &Report) {
    let held = report.checks.iter().filter(|check| check.ok).count();
    let all = report.checks.len();
    if all > 0 {
        push(out, &format!("checks: {held} of {all} hold"));
    }
    for check in &report.checks {
        if check.ok && all > CHECKS_LISTED_MAX {
            continue;
        }
        let verdict = if check.ok { "ok " } else { "BAD" };
        let mut line = format!("  {verdict} {} at {}", check.what, check.at);
        if !check.detail.is_empty() {
            let _ = write!(line, ": {}", check.detail);
        }
        push(out, &line);
    }
}
