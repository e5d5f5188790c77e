use std::{convert::Infallible, time::Duration};

use prost::Message;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tonic::{
    Status,
    body::Body,
    codegen::http::{Request, Response},
};
use tower::{Layer, Service, ServiceExt, service_fn};

use crate::{
    otlp::{Any, ExportRequest, ExportResponse, KeyValue, PartialSuccess, WireSpan},
    span::{Kind, Open},
    *,
};

/// A collector of the test's own. It gives these answers, the last one from then on.
struct Collector {
    endpoint: Endpoint,
    taken: mpsc::UnboundedReceiver<ExportRequest>,
}

impl Collector {
    async fn start(answers: &'static [&'static str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let (sender, taken) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut answers = answers.iter();
            let mut answer = "";
            while let Ok((mut stream, _)) = listener.accept().await {
                answer = answers.next().unwrap_or(&answer);
                let request = read(&mut stream).await;
                sender.send(request).unwrap();
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        Self { endpoint, taken }
    }

    fn exporter(&self) -> Exporter {
        exporter(self.endpoint.clone(), 100)
    }

    /// The spans of the next message, and what describes the process.
    async fn next(&mut self) -> (Vec<WireSpan>, Vec<KeyValue>) {
        let mut request = self.taken.recv().await.unwrap();
        let mut of_resource = request.resource_spans.pop().unwrap();
        assert!(request.resource_spans.is_empty());
        let resource = of_resource.resource.unwrap().attributes;
        (of_resource.scope_spans.pop().unwrap().spans, resource)
    }
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
const BUSY: &str = "HTTP/1.1 503 Service Unavailable\r\nretry-after: 0\r\ncontent-length: 0\r\n\r\n";
const BAD: &str = "HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\nno";

async fn read(stream: &mut TcpStream) -> ExportRequest {
    let mut bytes = Vec::new();
    loop {
        assert!(stream.read_buf(&mut bytes).await.unwrap() > 0, "the request is cut off");
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap().to_lowercase();
        assert!(head.starts_with("post /v1/traces http/1.1"), "{head}");
        assert!(head.contains("content-type: application/x-protobuf"), "{head}");
        let (_, length) = head.split_once("content-length: ").unwrap();
        let length: usize = length.split_whitespace().next().unwrap().parse().unwrap();
        let body = &bytes[end + 4..];
        if body.len() >= length {
            return ExportRequest::decode(body).unwrap();
        }
    }
}

fn exporter(endpoint: Endpoint, percent: u8) -> Exporter {
    let resource = || vec![("service.name", Value::from("meshd"))];
    Exporter::start(Options { endpoint, percent, resource: Box::new(resource) })
}

fn word<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a str> {
    let said = attributes.iter().find(|said| said.key == key)?.value.as_ref()?.value.as_ref()?;
    match said {
        Any::Text(text) => Some(text),
        Any::Number(_) => None,
    }
}

fn number(attributes: &[KeyValue], key: &str) -> Option<i64> {
    let said = attributes.iter().find(|said| said.key == key)?.value.as_ref()?.value.as_ref()?;
    match said {
        Any::Number(number) => Some(*number),
        Any::Text(_) => None,
    }
}

/// A call of `path` that a service behind the layer answers; tells what `traceparent` that one would pass on.
async fn call(layer: TraceLayer, path: &str, parent: Option<&str>, status: Option<Status>) -> Option<String> {
    let (told, tell) = tokio::sync::oneshot::channel();
    let mut told = Some(told);
    let service = service_fn(move |_: Request<Body>| {
        let (told, status) = (told.take().unwrap(), status.clone());
        async move {
            // Work in a task of its own belongs to the call as well.
            let work = carried(async {
                within("a step", async {
                    let request = pass_on(());
                    let told = request.metadata().get("traceparent");
                    Ok::<_, Status>(told.map(|told| told.to_str().unwrap().to_owned()))
                })
                .await
            });
            told.send(tokio::spawn(work).await.unwrap().unwrap()).unwrap();
            Ok::<_, Infallible>(match status {
                Some(status) => status.into_http::<Body>(),
                None => Response::new(Body::empty()),
            })
        }
    });
    let mut request = Request::builder().uri(format!("http://meshd{path}"));
    if let Some(parent) = parent {
        request = request.header("traceparent", parent);
    }
    let mut traced = layer.layer(service);
    let request = request.body(Body::empty()).unwrap();
    traced.ready().await.unwrap().call(request).await.unwrap();
    tell.await.unwrap()
}

fn layer(trusted: bool) -> TraceLayer {
    let caller = |_: &_| Caller { trusted: true, attributes: vec![("mesh.caller.uid", 7.into())] };
    let stranger = |_: &_| Caller::default();
    TraceLayer::new(if trusted { caller } else { stranger }, &["/mesh.v1.Raft/Call"])
}

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const UNSAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

#[tokio::test]
async fn a_call_and_its_work_are_spans_of_the_callers_trace() {
    let mut collector = Collector::start(&[OK]).await;
    let exporter = collector.exporter();
    let traced = layer(true).by(exporter.clone());
    let told = call(traced, "/mesh.v1.Local/Attach", Some(PARENT), None).await.unwrap();
    exporter.flush().await;
    let (spans, resource) = collector.next().await;
    assert_eq!(word(&resource, "service.name"), Some("meshd"));
    let [step, served] = &spans[..] else { panic!("{spans:?}") };
    let parent: SpanContext = PARENT.parse().unwrap();
    assert_eq!((served.name.as_str(), served.kind), ("mesh.v1.Local/Attach", 2));
    assert_eq!(served.parent_span_id, parent.span.to_be_bytes());
    assert_eq!((step.name.as_str(), &step.parent_span_id), ("a step", &served.span_id));
    for span in [step, served] {
        assert_eq!(span.trace_id, parent.trace.to_be_bytes());
        assert!(span.end_time_unix_nano >= span.start_time_unix_nano && span.status.is_none());
    }
    assert_eq!(word(&served.attributes, "rpc.service"), Some("mesh.v1.Local"));
    assert_eq!(word(&served.attributes, "rpc.method"), Some("Attach"));
    assert_eq!(number(&served.attributes, "mesh.caller.uid"), Some(7));
    assert_eq!(number(&served.attributes, "rpc.grpc.status_code"), Some(0));
    // What is called from there is told of the step.
    let told: SpanContext = told.parse().unwrap();
    assert_eq!((told.trace, told.span.to_be_bytes().to_vec()), (parent.trace, step.span_id.clone()));
    assert_eq!(exporter.counts(), Counts { exported: 2, dropped: 0, trouble: None });
}

#[tokio::test]
async fn refusals_are_told_and_only_faults_are_faults() {
    let mut collector = Collector::start(&[OK]).await;
    let exporter = collector.exporter();
    for status in [Status::failed_precondition("no such network"), Status::internal("broken")] {
        let traced = layer(true).by(exporter.clone());
        call(traced, "/mesh.v1.Control/Publish", None, Some(status)).await;
    }
    exporter.flush().await;
    let (spans, _) = collector.next().await;
    let served: Vec<&WireSpan> = spans.iter().filter(|span| span.kind == 2).collect();
    let said = |span: &WireSpan| word(&span.attributes, "mesh.refusal").unwrap().to_owned();
    assert_eq!(served.iter().map(|span| said(span)).collect::<Vec<_>>(), ["no such network", "broken"]);
    assert!(served[0].status.is_none(), "a refusal is no fault");
    assert_eq!(served[1].status.as_ref().map(|status| status.code), Some(2));
    assert!(served.iter().all(|span| span.parent_span_id.is_empty()));
    assert_ne!(served[0].trace_id, served[1].trace_id);
}

#[tokio::test]
async fn strangers_and_quiet_calls_begin_nothing_that_they_want() {
    let mut collector = Collector::start(&[OK]).await;
    let all = collector.exporter();
    // A stranger's word on the trace does not count.
    call(layer(false).by(all.clone()), "/mesh.v1.Join/Join", Some(PARENT), None).await;
    all.flush().await;
    let (spans, _) = collector.next().await;
    assert!(
        spans.iter().all(|span| span.trace_id != PARENT.parse::<SpanContext>().unwrap().trace.to_be_bytes())
    );
    // What is not to be exported is not, and the next is told so.
    let told =
        call(layer(true).by(all.clone()), "/mesh.v1.Local/Attach", Some(UNSAMPLED), None).await.unwrap();
    assert!(told.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-") && told.ends_with("-00"), "{told}");
    let none = exporter(collector.endpoint.clone(), 0);
    let told = call(layer(true).by(none.clone()), "/mesh.v1.Local/Attach", None, None).await.unwrap();
    assert!(told.ends_with("-00"), "{told}");
    assert_eq!(call(layer(true).by(all.clone()), "/mesh.v1.Raft/Call", None, None).await, None);
    // A quiet call that somebody's call has caused is shown.
    call(layer(true).by(none), "/mesh.v1.Raft/Call", Some(PARENT), None).await;
    all.flush().await;
    assert_eq!(all.counts().exported, 2);
    // And without an exporter there is nothing to tell.
    assert_eq!(call(layer(true), "/mesh.v1.Local/Attach", Some(PARENT), None).await, None);
}

fn spans(exporter: &Exporter, count: usize) {
    for n in 0..count {
        let context: SpanContext = PARENT.parse().unwrap();
        Open::begin(exporter.clone(), context, None, format!("span {n}"), Kind::Internal).end(None);
    }
}

#[tokio::test]
async fn a_collector_that_is_busy_is_asked_again_and_one_that_refuses_is_not() {
    let mut collector = Collector::start(&[BUSY, OK, BAD]).await;
    let exporter = collector.exporter();
    spans(&exporter, 512);
    collector.next().await;
    let (again, _) = collector.next().await;
    assert_eq!(again.len(), 512);
    spans(&exporter, 512);
    collector.next().await;
    let counted = async {
        while exporter.counts().dropped < 512 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), counted).await.unwrap();
    let counts = exporter.counts();
    assert_eq!((counts.exported, counts.dropped), (512, 512));
    assert_eq!(counts.trouble.as_deref(), Some("the collector answers 400 Bad Request"));
}

#[tokio::test]
async fn a_collector_that_never_answers_costs_spans_and_nothing_else() {
    // It takes connections, and that is all.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let exporter = exporter(format!("http://{}", listener.local_addr().unwrap()).parse().unwrap(), 100);
    for _ in 0..20 {
        spans(&exporter, 1_000);
        tokio::task::yield_now().await;
    }
    let dropped = exporter.counts().dropped;
    // What waits, and what is under way.
    assert!((20_000 - 2_048 - 512..20_000).contains(&(dropped as usize)), "{dropped}");
    let begun = std::time::Instant::now();
    exporter.flush().await;
    assert!(begun.elapsed() < Duration::from_secs(30), "the end waits for it");
}

#[test]
fn rejected_spans_are_read() {
    let answer = ExportResponse { partial_success: Some(PartialSuccess { rejected_spans: 3 }) };
    assert_eq!(answer.encode_to_vec(), [0x0a, 0x02, 0x08, 0x03]);
}
