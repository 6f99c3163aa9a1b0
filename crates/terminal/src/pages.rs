//! The pages and their files, as browsers get them. There is no build step.

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::response::Html;
use axum::routing::get;

/// The page of a signed-in user.
pub(super) const HOME: Html<&str> = Html(include_str!("page/home.html"));
const SIGN_IN: Html<&str> = Html(include_str!("page/sign-in.html"));

const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";
const FILES: [(&str, &str, &str); 11] = [
    ("/style.css", CSS, include_str!("page/style.css")),
    ("/bell.svg", SVG, include_str!("page/bell.svg")),
    ("/sign-in.js", JAVASCRIPT, include_str!("page/sign-in.js")),
    ("/home.js", JAVASCRIPT, include_str!("page/home.js")),
    (
        "/connection.js",
        JAVASCRIPT,
        include_str!("page/connection.js"),
    ),
    ("/windows.js", JAVASCRIPT, include_str!("page/windows.js")),
    ("/worker.js", JAVASCRIPT, include_str!("page/worker.js")),
    ("/feed.js", JAVASCRIPT, include_str!("page/feed.js")),
    ("/reminder.js", JAVASCRIPT, include_str!("page/reminder.js")),
    ("/history.js", JAVASCRIPT, include_str!("page/history.js")),
    ("/time.js", JAVASCRIPT, include_str!("page/time.js")),
];

/// Returns the routes of what everybody may read.
pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let pages = Router::new().route("/", get(SIGN_IN));
    FILES.into_iter().fold(pages, |pages, (path, kind, text)| {
        pages.route(path, get(([(CONTENT_TYPE, kind)], text)))
    })
}
