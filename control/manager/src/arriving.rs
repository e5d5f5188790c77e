//! Requests that arrive slowly: of each caller so many may be on their way at once, and its others wait for them.
//!
//! A request is kept in memory until it is whole. Without a bound one connection could have a thousand on their way, each of
//! some megabytes, and so could each connection of a caller. Whose requests arrive as they are sent does not notice.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use futures::future::BoxFuture;
use http_body_util::BodyExt;
use mesh_api::transport::PeerInfo;
use mesh_types::NodeId;
use tokio::sync::Semaphore;
use tonic::{
    body::Body,
    codegen::{
        Body as _,
        http::{Request, Response},
    },
};
use tower::{Layer, Service};

use crate::access::Caller;

/// Requests of one caller that have not arrived whole.
const AT_ONCE: usize = 32;
/// Callers that are remembered before those are forgotten whose requests have all arrived.
const REMEMBERED: usize = 1_024;

/// Who calls: a member, else whoever is at that address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Who {
    Node(NodeId),
    Address(IpAddr),
}

fn who<B>(request: &Request<B>) -> Option<Who> {
    let extensions = request.extensions();
    let address = || extensions.get::<PeerInfo>().map(|peer| Who::Address(peer.addr.ip()));
    extensions.get::<Caller>().map(|caller| Who::Node(caller.node)).or_else(address)
}

/// Bounds what arrives, for every service behind it.
#[derive(Clone, Default)]
pub(crate) struct ArrivingLayer {
    callers: Arc<Mutex<HashMap<Who, Arc<Semaphore>>>>,
}

impl ArrivingLayer {
    fn room_of(&self, caller: Who) -> Arc<Semaphore> {
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if callers.len() >= REMEMBERED {
            // Who waits, or is arriving, holds another handle.
            callers.retain(|_, room| Arc::strong_count(room) > 1);
        }
        callers.entry(caller).or_insert_with(|| Arc::new(Semaphore::new(AT_ONCE))).clone()
    }
}

impl<S> Layer<S> for ArrivingLayer {
    type Service = Arriving<S>;

    fn layer(&self, inner: S) -> Arriving<S> {
        Arriving { layer: self.clone(), inner }
    }
}

/// A service whose requests take turns in arriving.
#[derive(Clone)]
pub(crate) struct Arriving<S> {
    layer: ArrivingLayer,
    inner: S,
}

impl<S> Service<Request<Body>> for Arriving<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let caller = who(&request).filter(|_| !request.body().is_end_stream());
        let room = caller.map(|caller| self.layer.room_of(caller));
        // The one that is ready goes with the call.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        Box::pin(async move {
            let Some(room) = room else { return inner.call(request).await };
            // It is never closed; a call that waits for too long ends by its time limit.
            let Ok(place) = room.acquire_owned().await else { return inner.call(request).await };
            // The body goes when the request is whole, before it is carried out, and the place with it.
            let arriving = |body: Body| {
                Body::new(body.map_frame(move |frame| {
                    let _held = &place;
                    frame
                }))
            };
            inner.call(request.map(arriving)).await
        })
    }
}
