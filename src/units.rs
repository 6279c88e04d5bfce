//! Units: no bare number crosses a module border.
