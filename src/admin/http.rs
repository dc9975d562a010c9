//! HTTP on the admin port.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use super::exposition;
use super::scrape::scrape;
use super::status::{Reason, Status, summary};

/// LIMIT: connections open at a time; one more is closed at once.
const CONNECTIONS_MAX: usize = 32;
/// A connection has this long for its one request and the answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// LIMIT: bytes of a request's line and headers. A body is never read.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Wait after the system refused to accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const PLAIN: &str = "text/plain; charset=utf-8";
const PATHS: &str = "falcon serves /metrics, /livez and /readyz here\n";

/// The listening socket and its connections. Ends when it is dropped.
pub struct AdminPort {
    address: SocketAddr,
    tasks: TaskTracker,
    stopping: CancellationToken,
}

/// What all connections share.
struct Shared {
    status: Arc<Status>,
    /// Places for scrapes: one, so that scrapers cannot keep more than a thread busy.
    scrapes: Semaphore,
    tasks: TaskTracker,
}

impl AdminPort {
    /// Starts accepting on a bound socket.
    pub fn start(socket: TcpListener, status: Arc<Status>) -> std::io::Result<Self> {
        let address = socket.local_addr()?;
        let (tasks, stopping) = (TaskTracker::new(), CancellationToken::new());
        let shared = Arc::new(Shared {
            status,
            scrapes: Semaphore::new(1),
            tasks: tasks.clone(),
        });
        let accept = accept(socket, shared, stopping.clone());
        let token = stopping.clone();
        tasks.spawn(async move { token.run_until_cancelled(accept).await });
        Ok(Self {
            address,
            tasks,
            stopping,
        })
    }

    /// The address that is listened on.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it. Nothing of any connection is left afterwards.
    pub async fn stop(self) {
        self.stopping.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for AdminPort {
    fn drop(&mut self) {
        self.stopping.cancel();
    }
}

/// CANCEL SAFETY: a connection that was accepted has a task of its own.
async fn accept(socket: TcpListener, shared: Arc<Shared>, stopping: CancellationToken) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let connection = match socket.accept().await {
            Ok((connection, _)) => connection,
            Err(error) => {
                warn!(%error, "the admin port could not accept a connection");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            shared.status.metrics.admin.refused.add(1);
            continue;
        };
        let (of, token) = (Arc::clone(&shared), stopping.clone());
        shared.tasks.spawn(async move {
            token.run_until_cancelled(serve(connection, of)).await;
            drop(place);
        });
    }
}

async fn serve(connection: TcpStream, shared: Arc<Shared>) {
    let answer = service_fn(|request| async {
        let answer = answer(&shared, request).await;
        Ok::<_, Infallible>(answer)
    });
    let mut http = http1::Builder::new();
    // One request a connection: a peer that keeps it open holds nothing for longer than its patience.
    http.keep_alive(false).max_buf_size(HEAD_BYTES_MAX);
    let serving = http.serve_connection(TokioIo::new(connection), answer);
    // A peer that left, or sent what is no HTTP, was told so: nothing is at stake.
    let served = timeout(PATIENCE, serving).await;
    if served.is_err() {
        shared.status.metrics.admin.late.add(1);
    }
}

async fn answer(shared: &Shared, request: Request<Incoming>) -> Response<Full<Bytes>> {
    shared.status.metrics.admin.requests.add(1);
    let path = request.uri().path();
    if !["/metrics", "/livez", "/readyz"].contains(&path) {
        return reply(StatusCode::NOT_FOUND, PLAIN, PATHS);
    }
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        let text = "only GET and HEAD\n";
        let mut refused = reply(StatusCode::METHOD_NOT_ALLOWED, PLAIN, text);
        let allowed = HeaderValue::from_static("GET, HEAD");
        refused.headers_mut().insert(ALLOW, allowed);
        return refused;
    }
    match path {
        "/metrics" => metrics(shared).await,
        "/livez" => {
            let hangs = shared.status.hangs();
            reply(code(&hangs), PLAIN, lines(&hangs, "alive", "not alive"))
        }
        _ => readiness(&shared.status, wants_json(&request)),
    }
}

async fn metrics(shared: &Shared) -> Response<Full<Bytes>> {
    let status = Arc::clone(&shared.status);
    let scraped = match shared.scrapes.acquire().await {
        Ok(_place) => shared.tasks.spawn_blocking(move || scrape(&status)).await,
        Err(_) => return reply(StatusCode::SERVICE_UNAVAILABLE, PLAIN, "shutting down\n"),
    };
    match scraped {
        Ok(page) => reply(StatusCode::OK, exposition::CONTENT_TYPE, page),
        Err(_) => reply(StatusCode::INTERNAL_SERVER_ERROR, PLAIN, "no scrape\n"),
    }
}

fn readiness(status: &Status, is_json: bool) -> Response<Full<Bytes>> {
    let reasons = status.reasons();
    let code = code(&reasons);
    if is_json {
        let text = format!("{}\n", status.to_json(&reasons));
        return reply(code, "application/json", text);
    }
    reply(code, PLAIN, lines(&reasons, "ready", "not ready"))
}

fn code(reasons: &[Reason]) -> StatusCode {
    if reasons.iter().any(|reason| reason.is_fatal) {
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        StatusCode::OK
    }
}

/// The verdict, then one line per reason.
fn lines(reasons: &[Reason], good: &str, bad: &str) -> String {
    let is_bad = summary(reasons) == "not ready";
    let verdict = if is_bad { bad } else { good };
    let reasons = reasons.iter().map(|reason| {
        let weight = if reason.is_fatal { "" } else { "degraded: " };
        format!("{weight}{}: {}\n", reason.name, reason.text)
    });
    format!("{verdict}\n{}", reasons.collect::<String>())
}

fn wants_json(request: &Request<Incoming>) -> bool {
    let accept = request.headers().get(ACCEPT);
    let accept = accept.and_then(|value| value.to_str().ok());
    accept.is_some_and(|accept| accept.contains("application/json"))
}

fn reply(code: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
