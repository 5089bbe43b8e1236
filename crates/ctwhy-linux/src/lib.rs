//! ctwhy-linux
