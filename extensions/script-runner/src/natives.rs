//! The doors between the prelude and the host.

use boa_engine::object::FunctionObjectBuilder;
use boa_engine::object::builtins::{JsArray, JsArrayBuffer, JsPromise, JsUint8Array};
use boa_engine::{
    Context, JsArgs as _, JsNativeError, JsResult, JsString, JsValue, NativeFunction,
};

use crate::engine::text_of;
use crate::ops::{self, Answer, Request};
use crate::scope::{self, Scope, Settle};

/// `later(scope, operation, json, bytes?) -> promise`, `now(scope, operation, json) -> json` and `decode(bytes, fatal) -> text`.
pub(crate) fn all(context: &mut Context) -> [JsValue; 3] {
    [later, now, decode].map(|native| {
        FunctionObjectBuilder::new(context.realm(), NativeFunction::from_fn_ptr(native))
            .build()
            .into()
    })
}

fn request(arguments: &[JsValue]) -> Request {
    let bytes = arguments.get_or_undefined(3).as_object();
    let bytes = bytes
        .and_then(|object| JsArrayBuffer::from_object(object).ok())
        .and_then(|buffer| buffer.to_vec());
    Request {
        operation: text_of(arguments.get_or_undefined(1)),
        json: text_of(arguments.get_or_undefined(2)),
        bytes,
    }
}

fn scope_of(arguments: &[JsValue]) -> Option<std::rc::Rc<Scope>> {
    let id = arguments.get_or_undefined(0).as_number()?;
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a number that is no id finds no scope"
    )]
    scope::find(id as u32)
}

fn later(_: &JsValue, arguments: &[JsValue], context: &mut Context) -> JsResult<JsValue> {
    let request = request(arguments);
    let (promise, resolvers) = JsPromise::new_pending(context);
    let settle: Settle = Box::new(move |answer, context| {
        let value = value_of(answer, context)?;
        resolvers
            .resolve
            .call(&JsValue::undefined(), &[value], context)
            .map(drop)
    });
    match scope_of(arguments) {
        Some(scope) => {
            if let Err((settle, why)) = scope.ask(request, settle) {
                settle(Answer::refused(why), context)?;
            }
        }
        None => settle(Answer::refused(ops::over(&request.operation)), context)?,
    }
    Ok(promise.into())
}

fn now(_: &JsValue, arguments: &[JsValue], context: &mut Context) -> JsResult<JsValue> {
    let request = request(arguments);
    let answer = match scope_of(arguments) {
        Some(scope) => ops::now(&scope, &request),
        None if request.operation == "log.write" => ops::write(&request).into(),
        None => Answer::refused(ops::over(&request.operation)),
    };
    value_of(answer, context)
}

fn decode(_: &JsValue, arguments: &[JsValue], _: &mut Context) -> JsResult<JsValue> {
    let buffer = arguments.get_or_undefined(0).as_object();
    let bytes = buffer
        .and_then(|object| JsArrayBuffer::from_object(object).ok())
        .and_then(|buffer| buffer.to_vec())
        .unwrap_or_default();
    if arguments.get_or_undefined(1).to_boolean() && std::str::from_utf8(&bytes).is_err() {
        return Err(JsNativeError::typ()
            .with_message("these bytes are no UTF-8")
            .into());
    }
    Ok(JsString::from(String::from_utf8_lossy(&bytes).as_ref()).into())
}

fn value_of(answer: Answer, context: &mut Context) -> JsResult<JsValue> {
    Ok(match answer {
        Answer::Json(value) => JsString::from(value.to_string()).into(),
        Answer::Text(text, bytes) => {
            // Told apart from JSON by its kind: a text may be anything.
            let pair = [JsString::from(text).into(), JsValue::from(bytes)];
            JsArray::from_iter(pair, context).into()
        }
        Answer::Bytes(bytes) => {
            let buffer = JsArrayBuffer::new(bytes.len(), context)?;
            if let Some(mut data) = buffer.data_mut() {
                data.copy_from_slice(&bytes);
            }
            JsUint8Array::from_array_buffer(buffer, context)?.into()
        }
    })
}
