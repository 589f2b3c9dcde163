"""Help for the tests of programs that use chatscope; nothing in the package itself imports from here."""
