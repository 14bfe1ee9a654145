//! The description of the API as an OpenAPI document. It is made from the same list of routes as the
//! router, and from the types of the answers, so that it cannot differ from either.

use axum::{
    handler::Handler,
    http::{Method, StatusCode},
    routing::{MethodFilter, MethodRouter, on},
};
use schemars::{
    JsonSchema, Schema, SchemaGenerator,
    generate::{Contract, SchemaSettings},
};
use serde_json::{Map, Value, json};

use super::problem::{PROBLEM_JSON, Problem};

/// The version of the specification that the document follows.
const OPENAPI: &str = "3.1.0";
/// The version of the API, which is the first part of its paths.
const API_VERSION: &str = "1";
/// The part of the document that has the types.
const SCHEMAS: &str = "/components/schemas";

/// The answers to requests that no route gets, whatever they ask for.
const REFUSALS: [(StatusCode, &str); 4] = [
    (StatusCode::BAD_REQUEST, "The body cannot be read."),
    (
        StatusCode::UNAUTHORIZED,
        "The request came on an address that is not loopback, and has no token.",
    ),
    (
        StatusCode::FORBIDDEN,
        "The request is for a name that may be anybody's, or from a web page of another origin.",
    ),
    (
        StatusCode::PAYLOAD_TOO_LARGE,
        "The body is larger than that of any request.",
    ),
];

/// Returns the schema of a type.
type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// One operation of the API: its handler and its description.
pub struct Route<S> {
    /// The path.
    pub path: &'static str,
    /// Earlier paths with the same answer.
    pub aliases: &'static [&'static str],
    /// Whether any user may use it: it changes nothing, and shows nothing secret.
    pub is_for_all: bool,
    /// The method and the handler.
    pub handler: MethodRouter<S>,
    method: Method,
    summary: &'static str,
    parameters: Vec<Parameter>,
    /// The type of the request's body, if it has one.
    question: Option<SchemaOf>,
    answers: Vec<Answer>,
    events: Vec<(&'static str, SchemaOf)>,
}

/// A parameter in the query.
struct Parameter {
    name: &'static str,
    description: &'static str,
    schema: SchemaOf,
}

/// A kind of answer.
struct Answer {
    status: StatusCode,
    description: &'static str,
    /// The media type and the type of the body; `None` without one.
    body: Option<(&'static str, SchemaOf)>,
}

impl<S: Clone + Send + Sync + 'static> Route<S> {
    /// Returns a route that reads.
    pub fn get<H: Handler<T, S>, T: 'static>(
        path: &'static str,
        handler: H,
        summary: &'static str,
    ) -> Self {
        Self::new(Method::GET, path, on(MethodFilter::GET, handler), summary)
    }

    /// Returns a route that changes something, for users of the unix socket alone.
    pub fn post<H: Handler<T, S>, T: 'static>(
        path: &'static str,
        handler: H,
        summary: &'static str,
    ) -> Self {
        let handler = on(MethodFilter::POST, handler);
        Self::new(Method::POST, path, handler, summary).for_operators()
    }

    /// Makes the route one for users of the unix socket alone.
    pub fn for_operators(mut self) -> Self {
        self.is_for_all = false;
        self.fails(
            StatusCode::FORBIDDEN,
            "The request came on TCP, where clients are not authenticated.",
        )
    }

    /// Returns the same route with another handler.
    pub fn handled_by<H: Handler<T, S>, T: 'static>(&self, handler: H) -> MethodRouter<S> {
        let filter = MethodFilter::try_from(self.method.clone());
        // Routes have methods that there are.
        on(filter.unwrap_or(MethodFilter::GET), handler)
    }

    /// Returns a route that reads, and whose question of type `Q` is the body of the request.
    pub fn ask<Q: JsonSchema, H: Handler<T, S>, T: 'static>(
        path: &'static str,
        handler: H,
        summary: &'static str,
    ) -> Self {
        let handler = on(MethodFilter::POST, handler);
        Self {
            question: Some(SchemaGenerator::subschema_for::<Q>),
            ..Self::new(Method::POST, path, handler, summary)
        }
    }

    fn new(
        method: Method,
        path: &'static str,
        handler: MethodRouter<S>,
        summary: &'static str,
    ) -> Self {
        Self {
            path,
            aliases: &[],
            is_for_all: true,
            handler,
            method,
            summary,
            parameters: Vec::new(),
            question: None,
            answers: Vec::new(),
            events: Vec::new(),
        }
    }

    /// Adds earlier paths with the same answer.
    pub fn alias(mut self, aliases: &'static [&'static str]) -> Self {
        self.aliases = aliases;
        self
    }

    /// Adds an optional parameter in the query.
    pub fn parameter<T: JsonSchema>(
        mut self,
        name: &'static str,
        description: &'static str,
    ) -> Self {
        self.parameters.push(Parameter {
            name,
            description,
            schema: SchemaGenerator::subschema_for::<T>,
        });
        self
    }

    /// Describes the answer to a request that is fulfilled, as JSON.
    pub fn answers<T: JsonSchema>(self, description: &'static str) -> Self {
        self.answers_as::<T>(StatusCode::OK, "application/json", description)
    }

    /// Describes an answer of another media type.
    pub fn answers_as<T: JsonSchema>(
        mut self,
        status: StatusCode,
        media: &'static str,
        description: &'static str,
    ) -> Self {
        self.answers.push(Answer {
            status,
            description,
            body: Some((media, SchemaGenerator::subschema_for::<T>)),
        });
        self
    }

    /// Describes the answer to a request that is fulfilled, which has no content.
    pub fn answers_empty(mut self, description: &'static str) -> Self {
        self.answers.push(Answer {
            status: StatusCode::OK,
            description,
            body: None,
        });
        self
    }

    /// Describes a kind of event in a stream of them, with the type of its data.
    pub fn event<T: JsonSchema>(mut self, name: &'static str) -> Self {
        self.events
            .push((name, SchemaGenerator::subschema_for::<T>));
        self
    }

    /// Describes the answer to a request that is not fulfilled.
    pub fn fails(self, status: StatusCode, description: &'static str) -> Self {
        self.answers_as::<Problem>(status, PROBLEM_JSON, description)
    }

    /// Returns the description of the operation.
    fn describe(&self, generator: &mut SchemaGenerator) -> Value {
        let parameters = self.parameters.iter();
        let parameters: Vec<_> = parameters
            .map(|parameter| {
                json!({
                    "name": parameter.name,
                    "in": "query",
                    "description": parameter.description,
                    "schema": (parameter.schema)(generator),
                })
            })
            .collect();
        let refusals = REFUSALS.map(|(status, description)| Answer {
            status,
            description,
            body: Some((PROBLEM_JSON, SchemaGenerator::subschema_for::<Problem>)),
        });
        let mut answers = Map::new();
        // The route's own description of a status is the first.
        for answer in self.answers.iter().chain(&refusals) {
            let status = answer.status.as_u16().to_string();
            let described = answers
                .entry(status)
                .or_insert_with(|| json!({"description": answer.description}));
            let Some((media, schema)) = answer.body else {
                continue;
            };
            let schema = match self.events.is_empty() || answer.status != StatusCode::OK {
                true => schema(generator).to_value(),
                false => self.describe_events(generator),
            };
            described["content"][media] = json!({"schema": schema});
        }
        let mut operation = json!({"summary": self.summary, "responses": answers});
        if !parameters.is_empty() {
            operation["parameters"] = Value::Array(parameters);
        }
        if let Some(schema) = self.question {
            operation["requestBody"] = json!({
                "required": true,
                "content": {"application/json": {"schema": schema(generator)}},
            });
        }
        operation
    }

    /// Returns the schema of each event of the stream.
    fn describe_events(&self, generator: &mut SchemaGenerator) -> Value {
        let events = self.events.iter().map(|(name, schema)| {
            let data = json!({
                "type": "string",
                "contentMediaType": "application/json",
                "contentSchema": schema(generator),
            });
            json!({
                "type": "object",
                "properties": {"event": {"const": name}, "data": data},
                "required": ["event", "data"],
            })
        });
        json!({"oneOf": events.collect::<Vec<_>>()})
    }
}

/// Returns the OpenAPI document of these routes.
#[must_use]
pub fn document<S: Clone + Send + Sync + 'static>(routes: &[Route<S>]) -> Value {
    let mut settings = SchemaSettings::draft2020_12();
    settings.contract = Contract::Serialize;
    settings.definitions_path = SCHEMAS.into();
    settings.meta_schema = None;
    let mut generator = settings.into_generator();
    let mut paths = Map::new();
    for route in routes {
        let method = route.method.as_str().to_ascii_lowercase();
        let operations = paths.entry(route.path).or_insert_with(|| json!({}));
        operations[method] = route.describe(&mut generator);
    }
    json!({
        "openapi": OPENAPI,
        "info": {
            "title": "teredo",
            "summary": "The API of a running Teredo relay, server or client",
            "description": "HTTP on the sockets of `node.api`. Operations that change something are \
                            for the unix socket alone. Later releases may add paths, fields, values \
                            and events, and change none that are here.",
            "version": API_VERSION,
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
        },
        "paths": paths,
        "components": {"schemas": generator.take_definitions(true)},
    })
}
