//! Clients that mean well, and others.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use mesh_metrics::http::{Answer, Bounds, Question, TurnedAway, serve};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    time::{sleep, timeout},
};

const BOUNDS: Bounds = Bounds { connections: 4, head: Duration::from_secs(1), whole: Duration::from_secs(3) };
/// More than kernels keep for a connection.
const LARGE: usize = 64 << 20;
/// For what takes a moment on a machine that is not busy.
const LONG: Duration = Duration::from_secs(60);

async fn answer(question: Question) -> Answer {
    match question.path.as_str() {
        "/large" => Answer { status: 200, content_type: "text/plain", body: Bytes::from(vec![b'x'; LARGE]) },
        "/echo" => Answer::words(200, &format!("{:?} {:?}", question.parameter("a"), question.accept)),
        path => Answer::words(404, &format!("nothing at {path}")),
    }
}

struct Server {
    address: SocketAddr,
    turned_away: TurnedAway,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn server() -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, turned_away) = (listener.local_addr().unwrap(), TurnedAway::default());
    let counting = turned_away.clone();
    let task = tokio::spawn(async move {
        serve(listener, BOUNDS, counting, answer).await;
    });
    Server { address, turned_away, task }
}

/// Sends all of it and reads to the end; what comes before an error counts.
async fn exchange(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    while let Ok(Ok(1..)) = timeout(LONG, stream.read(&mut chunk))
        .await
        .map(|read| read.inspect(|&length| answer.extend_from_slice(&chunk[..length])))
    {}
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn questions_are_answered() {
    let server = server().await;
    let answer = exchange(
        server.address,
        b"GET /echo?b=1&a=x%20y HTTP/1.1\r\nHost: n\r\nAccept: text/plain\r\nAccept: */*\r\n\r\n",
    );
    let answer = answer.await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nSome(\"x%20y\") \"text/plain,*/*\"\n"), "{answer}");
    assert!(answer.contains("connection: close\r\n") && answer.contains("nosniff\r\n"), "{answer}");
    let head = exchange(server.address, b"HEAD /large HTTP/1.1\r\nHost: n\r\n\r\n").await;
    assert!(head.contains(&format!("content-length: {LARGE}\r\n")) && head.ends_with("\r\n\r\n"), "{head}");
    let other =
        exchange(server.address, b"POST /echo HTTP/1.1\r\nHost: n\r\nContent-Length: 2\r\n\r\nhi").await;
    assert!(other.starts_with("HTTP/1.1 405 ") && other.contains("allow: GET, HEAD\r\n"), "{other}");
    let nothing = exchange(server.address, b"GET /../../etc/passwd HTTP/1.0\r\n\r\n").await;
    assert!(nothing.starts_with("HTTP/1.0 404 "), "{nothing}");
}

#[tokio::test]
async fn nonsense_is_refused_and_nobody_else_suffers() {
    let server = server().await;
    let long_header = format!("GET /echo HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(1 << 20));
    let many_headers = format!("GET /echo HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(1000));
    let long_path = format!("GET /{} HTTP/1.1\r\n\r\n", "z".repeat(1 << 20));
    for nonsense in [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".as_slice(),
        b"\0\0\0\0\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /echo HTTP/9.9\r\n\r\n",
        b"GET /echo HTTP/1.1\r\nno colon here\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        long_header.as_bytes(),
        many_headers.as_bytes(),
        long_path.as_bytes(),
    ] {
        let answer = exchange(server.address, nonsense).await;
        let refused = answer.is_empty() || answer.starts_with("HTTP/1.1 4");
        assert!(refused, "{:?}: {answer}", String::from_utf8_lossy(&nonsense[..nonsense.len().min(40)]));
    }
    let answer = exchange(server.address, b"GET /echo HTTP/1.1\r\nHost: n\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
}

/// With every place taken by clients that `say` this and then neither speak nor read, one is free again after a while.
async fn cut_off(say: &[u8]) {
    let server = server().await;
    let mut idle = Vec::new();
    for _ in 0..BOUNDS.connections {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut stream = socket.connect(server.address).await.unwrap();
        stream.write_all(say).await.unwrap();
        idle.push(stream);
    }
    let asked = async {
        loop {
            let answer = exchange(server.address, b"GET /echo HTTP/1.1\r\nHost: n\r\n\r\n").await;
            if answer.starts_with("HTTP/1.1 200 OK") {
                return;
            }
            assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 503 "), "{answer}");
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(LONG, asked).await.unwrap();
    drop(idle);
}

#[tokio::test]
async fn those_who_never_ask_are_cut_off() {
    cut_off(b"").await;
    cut_off(b"GET /echo HTTP/1.1\r\nx: ").await;
}

#[tokio::test]
async fn those_who_never_read_are_cut_off() {
    // More than fits into any buffer.
    cut_off(b"GET /large HTTP/1.1\r\nHost: n\r\n\r\n").await;
}

/// While all places are taken, each of thousands is turned away and let go at once, and costs nobody his place.
#[tokio::test]
async fn thousands_at_once_are_turned_away() {
    // As many as a process may have open without asking.
    const AT_ONCE: usize = 600;
    let server = server().await;
    let mut turned_away = 0;
    let mut answered = 0;
    for _ in 0..5 {
        let mut all = Vec::new();
        for _ in 0..AT_ONCE {
            all.push(TcpStream::connect(server.address).await.unwrap());
        }
        // Those who have a place say nothing; all others are told, and closed, though they never ask.
        for stream in &mut all {
            let mut told = Vec::new();
            match timeout(BOUNDS.whole * 2, stream.read_to_end(&mut told)).await.unwrap() {
                Ok(_) if told.is_empty() => answered += 1,
                Ok(_) | Err(_) => turned_away += 1,
            }
        }
    }
    assert!(answered <= 5 * BOUNDS.connections * 4, "{answered} had places");
    assert!(server.turned_away.count() >= turned_away, "{turned_away}");
    assert!(turned_away > 2000, "{turned_away}");
    let answer = exchange(server.address, b"GET /echo HTTP/1.1\r\nHost: n\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
}

#[tokio::test]
async fn one_too_many_is_told_so() {
    let server = server().await;
    let mut waiting = Vec::new();
    for _ in 0..BOUNDS.connections {
        waiting.push(TcpStream::connect(server.address).await.unwrap());
    }
    // The places are taken when the server has come to it.
    let told = async {
        loop {
            let mut stream = TcpStream::connect(server.address).await.unwrap();
            let mut answer = String::new();
            let read = timeout(Duration::from_millis(100), stream.read_to_string(&mut answer)).await;
            if matches!(read, Ok(Ok(1..))) {
                return answer;
            }
            waiting.clear();
            for _ in 0..BOUNDS.connections {
                waiting.push(TcpStream::connect(server.address).await.unwrap());
            }
        }
    };
    let answer = timeout(LONG, told).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.ends_with("try again shortly\n"), "{answer}");
    let length = answer.split_once("content-length: ").and_then(|(_, rest)| rest.split_once('\r')).unwrap().0;
    assert_eq!(length.parse::<usize>().unwrap(), answer.split_once("\r\n\r\n").unwrap().1.len());
    assert!(server.turned_away.count() > 0);
}
