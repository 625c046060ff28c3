//! The one place where our errors become gRPC codes.

use tonic::{Code, Status};

use crate::error::Error;

// By value, so that it serves as the argument of `map_err`.
#[allow(clippy::needless_pass_by_value)]
pub(crate) fn to_status(error: Error) -> Status {
    let code = match &error {
        Error::Invalid(_) => Code::InvalidArgument,
        Error::NotFound { .. } => Code::NotFound,
        Error::AlreadyExists(_) => Code::AlreadyExists,
        Error::FailedPrecondition(_) => Code::FailedPrecondition,
        Error::Deadline { .. } => Code::DeadlineExceeded,
        Error::Exhausted(_) => Code::ResourceExhausted,
        Error::Unavailable(_) => Code::Unavailable,
        Error::Denied(_) => Code::PermissionDenied,
        Error::Unimplemented(_) => Code::Unimplemented,
        Error::Internal(_) => Code::Internal,
    };
    Status::new(code, error.to_string())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tonic::Code;

    use super::to_status;
    use crate::error::Error;

    #[test]
    fn each_error_has_its_code_and_keeps_its_message() {
        let text = || "field x: value y".to_owned();
        let deadline = Error::Deadline {
            what: text(),
            after: Duration::from_secs(1),
        };
        let cases = [
            (Error::Invalid(text()), Code::InvalidArgument),
            (
                Error::NotFound {
                    kind: "pod",
                    id: text(),
                },
                Code::NotFound,
            ),
            (Error::AlreadyExists(text()), Code::AlreadyExists),
            (Error::FailedPrecondition(text()), Code::FailedPrecondition),
            (deadline, Code::DeadlineExceeded),
            (Error::Exhausted(text()), Code::ResourceExhausted),
            (Error::Unavailable(text()), Code::Unavailable),
            (Error::Denied(text()), Code::PermissionDenied),
            (Error::Unimplemented(text()), Code::Unimplemented),
            (Error::Internal(text()), Code::Internal),
        ];
        for (error, code) in cases {
            let status = to_status(error);
            assert_eq!(status.code(), code);
            assert!(status.message().contains("field x: value y"), "{status:?}");
        }
    }
}
