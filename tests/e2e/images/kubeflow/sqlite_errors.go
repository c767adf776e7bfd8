// What Kubeflow's API server names of SQLite's errors, for a build of go-sqlite3 without cgo: its own file of them needs C. No database here is SQLite.
package sqlite3

// Error is never made here.
type Error struct{ Code int }

func (Error) Error() string { return "SQLite is not built in" }

// ErrConstraint is SQLite's code of a constraint that does not hold.
const ErrConstraint = 19
