package pkgstore

import (
	"errors"
	"fmt"
)

// What the catalog refuses. The API's table of reasons says what each becomes on the wire.
var (
	// ErrUnknown means that there is no such package, or that it is another tenant's.
	ErrUnknown = errors.New("the package is not known")
	// ErrConflict means that this version exists with other content.
	ErrConflict = errors.New("this version exists with other content")
	// ErrField means that an argument cannot be; nothing was looked at.
	ErrField = errors.New("an argument cannot be")
	// ErrKeyExists means that the namespace has the key, perhaps with other settings, or revoked.
	ErrKeyExists = errors.New("the trust key exists")
	// ErrNoKey means that there is no such trust key.
	ErrNoKey = errors.New("the trust key is not known")
	// ErrYanked means that a version was taken back, ErrBlocked that it may not be used at all.
	ErrYanked  = errors.New("the version was yanked")
	ErrBlocked = errors.New("the version is blocked for its security")
	// ErrNotInstalled means that the tenant does not have the package, ErrNoHistory that there is nothing to
	// go back to, ErrDowngrade that an older version than the installed one was asked for.
	ErrNotInstalled = errors.New("the package is not installed")
	ErrNoHistory    = errors.New("there is no earlier version to go back to")
	ErrDowngrade    = errors.New("the version is older than the installed one")
	// ErrInstallChanged means that another change of the install got in between.
	ErrInstallChanged = errors.New("the install was changed meanwhile")
	// ErrConfusable means that another package has a name that reads the same.
	ErrConfusable = errors.New("another package has a name that reads the same")
	// ErrCapabilities means that an upgrade asks for more than the installed version does.
	ErrCapabilities = errors.New("the version asks for capabilities that the installed one does not have")
	// ErrDependency means that what a package depends on is not there, or in another version.
	ErrDependency = errors.New("what the package depends on is not there")
	// ErrUpload means that an upload is not known, or does not fit to what has arrived.
	ErrUpload = errors.New("the upload is not known, or goes on elsewhere")
	// ErrFull means that the catalog may not grow.
	ErrFull = errors.New("the catalog is full")
	// ErrContent means that kept bytes are not those that were published.
	ErrContent = errors.New("the kept content is damaged")
)

// refuse is one of the errors above, with what it means here.
func refuse(kind error, format string, args ...any) error {
	return &refusal{kind: kind, message: fmt.Sprintf(format, args...)}
}

// Refuse is an error of a kind above with words of its own.
func Refuse(kind error, format string, args ...any) error { return refuse(kind, format, args...) }

// refusal keeps the kind apart from the words, which say more.
type refusal struct {
	kind    error
	message string
}

func (r *refusal) Error() string { return r.message }
func (r *refusal) Unwrap() error { return r.kind }
