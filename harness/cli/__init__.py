"""`dsr`: parse, call one function, print what it returns."""
