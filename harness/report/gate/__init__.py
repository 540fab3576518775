"""The regression gate, `dsr check`: fresh rows against stored ones of unchanged code."""
