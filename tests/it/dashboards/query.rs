//! The inputs of an expression, and its problems.

use std::convert::Infallible;
use std::time::Duration;

use promql_parser::label::Matcher;
use promql_parser::parser::{self, Expr, VectorSelector};
use promql_parser::util::{ExprVisitor, walk_expr};

use super::exported::{Exported, Metric};

/// Grafana's variables, and their values when there is no dashboard: times that no query would say
/// itself.
const RATE_INTERVAL: (&str, Duration) = ("$__rate_interval", Duration::from_secs(1_234));
const RANGE: (&str, Duration) = ("$__range", Duration::from_secs(4_321));

/// The checked parts of an expression.
#[derive(Default)]
struct Parts {
    /// The series that it reads: at a moment, or over a time, by a function.
    series: Vec<(VectorSelector, Option<(&'static str, Duration)>)>,
    /// Labels that it groups by.
    groups: Vec<String>,
    aggregates_quantiles: bool,
}

impl ExprVisitor for Parts {
    type Error = Infallible;

    fn pre_visit(&mut self, expression: &Expr) -> Result<bool, Infallible> {
        match expression {
            Expr::VectorSelector(selector) => self.series.push((selector.clone(), None)),
            Expr::Call(call) => {
                let ranges = call
                    .args
                    .args
                    .iter()
                    .filter_map(|argument| match argument.as_ref() {
                        Expr::MatrixSelector(matrix) => {
                            Some((matrix.vs.clone(), Some((call.func.name, matrix.range))))
                        }
                        _ => None,
                    });
                self.series.extend(ranges);
            }
            Expr::Aggregate(aggregate) => {
                let labels = aggregate
                    .modifier
                    .iter()
                    .flat_map(|modifier| modifier.labels().labels.clone());
                self.groups.extend(labels);
                self.aggregates_quantiles |=
                    aggregate.expr.to_string().contains("histogram_quantile");
            }
            _ => {}
        }
        Ok(true)
    }
}

impl Parts {
    fn of(expression: &Expr) -> Self {
        let mut parts = Self::default();
        let Ok(_) = walk_expr(&mut parts, expression);
        parts
    }
}

/// The metrics that an expression reads.
pub(super) fn metrics<'e>(query: &str, exported: &'e Exported) -> Vec<&'e str> {
    let Ok(expression) = parsed(query) else {
        return Vec::new();
    };
    let names = Parts::of(&expression)
        .series
        .into_iter()
        .filter_map(|(selector, _)| selector.name);
    names
        .filter_map(|name| Some(exported.of(&name)?.0))
        .collect()
}

/// Returns the problems of an expression: it does not parse, or reads metrics that do not exist.
pub(super) fn complaints(query: &str, exported: &Exported) -> Vec<String> {
    let parts = match parsed(query) {
        Ok(expression) => Parts::of(&expression),
        Err(error) => return vec![error],
    };
    let mut complaints = Vec::new();
    let mut metrics = Vec::new();
    for (selector, range) in &parts.series {
        let name = selector.name.as_deref().unwrap_or_default();
        let Some((_, metric)) = exported.of(name) else {
            complaints.push(format!("there is no {name}"));
            continue;
        };
        complaints.extend(
            selector
                .matchers
                .matchers
                .iter()
                .filter_map(|matcher| mismatch(name, metric, matcher)),
        );
        if metric.kind != "gauge" && range.is_none() {
            complaints.push(format!("{name} only goes up: it needs a rate"));
        }
        metrics.push(metric);
    }
    let unknown = parts
        .groups
        .iter()
        .filter(|label| !metrics.iter().any(|metric| metric.has(label)));
    complaints
        .extend(unknown.map(|label| format!("it groups by {label}, which nothing in it has")));
    if parts.aggregates_quantiles {
        complaints.push("quantiles of several cannot be put together".to_owned());
    }
    complaints
}

/// Returns further problems of a panel's expression: it does not follow the variables.
pub(super) fn panel_complaints(query: &str) -> Vec<String> {
    let Ok(expression) = parsed(query) else {
        return Vec::new();
    };
    let mut complaints = Vec::new();
    for (selector, range) in Parts::of(&expression).series {
        let name = selector.name.unwrap_or_default();
        // Alerts are of the whole installation.
        let variables = if name == "ALERTS" {
            &["job"][..]
        } else {
            &["job", "instance"]
        };
        for variable in variables {
            let follows =
                |matcher: &Matcher| matcher.to_string() == format!(r#"{variable}=~"${variable}""#);
            if !selector.matchers.matchers.iter().any(follows) {
                complaints.push(format!("{name} does not follow ${variable}"));
            }
        }
        let due = range.map(|(function, range)| {
            (
                range,
                if function == "rate" {
                    RATE_INTERVAL
                } else {
                    RANGE
                },
            )
        });
        if let Some((_, (variable, _))) = due.filter(|(range, (_, due))| range != due) {
            complaints.push(format!(
                "{name} is taken over a time that is not {variable}"
            ));
        }
    }
    complaints
}

/// Returns the operands of an alert: each must have data, or the alert could never fire.
pub(super) fn operands(query: &str) -> Vec<String> {
    fn collect(expression: &Expr, into: &mut Vec<String>) {
        match expression {
            Expr::NumberLiteral(_) => {}
            Expr::Paren(paren) => collect(&paren.expr, into),
            Expr::Binary(binary)
                if binary.op.is_comparison_operator() || binary.op.is_set_operator() =>
            {
                collect(&binary.lhs, into);
                collect(&binary.rhs, into);
            }
            Expr::Call(call) if call.func.name == "absent" => {
                into.extend(call.args.args.iter().map(ToString::to_string))
            }
            other => into.push(other.to_string()),
        }
    }
    let mut operands = Vec::new();
    collect(&parser::parse(query).unwrap(), &mut operands);
    operands
}

fn parsed(query: &str) -> Result<Expr, String> {
    let query = [RATE_INTERVAL, RANGE]
        .iter()
        .fold(query.to_owned(), |query, (name, time)| {
            query.replace(name, &format!("{}s", time.as_secs()))
        });
    parser::parse(&query)
}

/// Returns the label or value that a matcher requires and no series has.
fn mismatch(name: &str, metric: &Metric, matcher: &Matcher) -> Option<String> {
    let (label, value) = (&matcher.name, &matcher.value);
    if !metric.has(label) {
        return Some(format!("{name} has no label {label}"));
    }
    let unknown = value
        .split('|')
        .find(|value| !metric.can_be(label, value))?;
    Some(format!("{label} of {name} is never {unknown}"))
}

#[test]
fn mistakes_are_found() {
    let exported = Exported::read();
    for (query, complaint) in [
        ("sum(", "unclosed"),
        ("bellhop_nothing", "there is no bellhop_nothing"),
        ("bellhop_query_seconds", "there is no bellhop_query_seconds"),
        (
            "bellhop_members{rank='1'}",
            "bellhop_members has no label rank",
        ),
        (
            "bellhop_roles{role=~'intake|cook'}",
            "role of bellhop_roles is never cook",
        ),
        ("bellhop_sets_total", "bellhop_sets_total only goes up"),
        ("sum by (role) (bellhop_members)", "it groups by role"),
        (
            "max(histogram_quantile(0.9, rate(bellhop_delivery_seconds_bucket[5m])))",
            "quantiles",
        ),
    ] {
        let complaints = complaints(query, &exported);
        assert!(
            complaints.len() == 1 && complaints[0].contains(complaint),
            "{query}: {complaints:?}"
        );
    }
    for (query, complaint) in [
        (
            r#"bellhop_members{job=~"$job"}"#,
            "does not follow $instance",
        ),
        (
            r#"bellhop_members{job="$job", instance=~"$instance"}"#,
            "does not follow $job",
        ),
        (
            r#"rate(bellhop_sets_total{job=~"$job", instance=~"$instance"}[5m])"#,
            "is not $__rate_interval",
        ),
        (
            r#"increase(bellhop_sets_total{job=~"$job", instance=~"$instance"}[$__rate_interval])"#,
            "is not $__range",
        ),
    ] {
        let complaints = panel_complaints(query);
        assert!(
            complaints.len() == 1 && complaints[0].contains(complaint),
            "{query}: {complaints:?}"
        );
    }
}

#[test]
fn operands_must_have_data() {
    let query = "sum(rate(a[5m])) == 0 and (b{c=\"d\"} > 2) or absent(e == 1)";
    assert_eq!(
        operands(query),
        ["sum(rate(a[5m]))", "b{c=\"d\"}", "e == 1"]
    );
}
