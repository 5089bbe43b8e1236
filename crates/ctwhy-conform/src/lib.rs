//! ctwhy-conform
