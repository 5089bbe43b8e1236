//! ctwhy-fixture
