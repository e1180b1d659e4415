//! Data objects on the token: found, read, put in place of older ones.

use cryptoki::{
    error::Error as CkError,
    object::{Attribute, AttributeType, ObjectHandle},
};

use super::{classify, session::At, template};
use crate::{
    DataObject, Result,
    error::{Error, Kind},
};

impl At<'_> {
    pub(super) fn data(&self) -> Result<Vec<DataObject>> {
        let found = self.find_data(None)?;
        Ok(found.into_iter().filter_map(|(_, object)| object).collect())
    }

    /// The new one first: a crash leaves one too many, never one too few. What is too
    /// many is known before, so that nothing that came meanwhile is destroyed unread.
    pub(super) fn put_data(&self, label: &str, value: &[u8]) -> Result<()> {
        let new = DataObject::new(label.to_owned(), value.to_vec())?;
        let mut old = self.find_data(Some(label))?;
        match old.iter().position(|(_, o)| o.as_ref() == Some(&new)) {
            Some(there) => drop(old.swap_remove(there)),
            None => self.create_data(&new)?,
        }
        for (handle, _) in old {
            self.session
                .destroy_object(handle)
                .map_err(|e| self.data_refused(&e))?;
        }
        Ok(())
    }

    /// A token that stores an object without its attributes would never show it again.
    fn create_data(&self, new: &DataObject) -> Result<()> {
        let handle = self
            .session
            .create_object(&template::data(new))
            .map_err(|e| self.data_refused(&e))?;
        let shown = self.find_data(Some(&new.label))?;
        if shown.iter().any(|(_, o)| o.as_ref() == Some(new)) {
            return Ok(());
        }
        let _ = self.session.destroy_object(handle);
        Err(Error::new(
            Kind::Unsupported,
            "this token keeps no data objects: it does not show the one it has just taken",
        ))
    }

    /// Ours, of one label or all; `None` in the place of what is half-written or too
    /// long.
    fn find_data(&self, label: Option<&str>) -> Result<Vec<(ObjectHandle, Option<DataObject>)>> {
        let handles = self
            .session
            .find_objects(&template::our_data(label))
            .map_err(|e| self.data_refused(&e))?;
        // A token that is gone shows no objects and no error.
        self.alive()?;
        handles
            .into_iter()
            .map(|handle| Ok((handle, self.data_object(handle)?)))
            .collect()
    }

    fn data_object(&self, handle: ObjectHandle) -> Result<Option<DataObject>> {
        let read = self
            .session
            .get_attributes(handle, &[AttributeType::Label, AttributeType::Value])
            .map_err(|e| self.data_refused(&e))?;
        let (mut label, mut value) = (None, None);
        for attribute in read {
            match attribute {
                Attribute::Label(bytes) => label = String::from_utf8(bytes).ok(),
                Attribute::Value(bytes) => value = Some(bytes),
                _ => {}
            }
        }
        Ok(label
            .zip(value)
            .and_then(|(label, value)| DataObject::new(label, value).ok()))
    }

    fn data_refused(&self, e: &CkError) -> Error {
        named(self.unsettled(&classify::from_cryptoki(e)))
    }
}

/// What cannot be done: a return value alone would not say.
fn named(e: Error) -> Error {
    match e.kind() {
        Kind::Unsupported => Error::new(
            Kind::Unsupported,
            format!("this token keeps no data objects: {e}"),
        ),
        _ => e,
    }
}

#[cfg(test)]
mod tests {
    use cryptoki::error::RvError;

    use super::*;

    #[test]
    fn a_token_that_takes_no_data_is_named() {
        for rv in [
            RvError::AttributeValueInvalid,
            RvError::FunctionNotSupported,
            RvError::TemplateInconsistent,
        ] {
            let e = named(classify::explain("C_CreateObject", rv));
            assert_eq!(e.kind(), Kind::Unsupported);
            assert!(e.to_string().contains("keeps no data objects"), "{e}");
            assert!(e.to_string().contains("C_CreateObject"), "{e}");
        }
        let full = named(classify::explain("C_CreateObject", RvError::DeviceMemory));
        assert_eq!(full.kind(), Kind::Busy);
    }
}
