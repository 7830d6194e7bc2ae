package api

import (
	"net/http"

	"connectrpc.com/connect"

	"github.com/maestro-conductor/maestro/pkgstore"
	"github.com/maestro-conductor/maestro/pkgstore/mwpkg"
)

// What the catalog of packages refuses.
var (
	reasonPackageUnknown = &reason{
		name: "package_unknown", code: connect.CodeNotFound,
		title: "there is no such package, or it is another tenant's",
		hint:  "list what there is with `maestro pkg list`; a private package is found with its tenant only; nothing was changed", sentinels: []error{pkgstore.ErrUnknown},
	}
	reasonVersionConflict = &reason{
		name: "version_conflict", code: connect.CodeAlreadyExists,
		title: "this version exists with other content",
		hint:  "a version never changes: publish the content under another one; nothing was changed", sentinels: []error{pkgstore.ErrConflict},
	}
	reasonVersionYanked = &reason{
		name: "version_yanked", code: connect.CodeFailedPrecondition, status: http.StatusConflict,
		title: "the version was yanked",
		hint:  "install another version; where a lock file has this one, install it by the lock file; nothing was changed", sentinels: []error{pkgstore.ErrYanked},
	}
	reasonVersionBlocked = &reason{
		name: "version_blocked", code: connect.CodeFailedPrecondition, status: http.StatusConflict,
		title: "the version is blocked for its security, for good",
		hint:  "use another version; nothing was changed", sentinels: []error{pkgstore.ErrBlocked},
	}
	reasonVersionOlder = &reason{
		name: "version_older", code: connect.CodeFailedPrecondition, status: http.StatusConflict,
		title: "the version is older than the installed one",
		hint:  "allow it with `--allow-downgrade`, or go back with `maestro pkg rollback`; nothing was changed", sentinels: []error{pkgstore.ErrDowngrade},
	}
	reasonCapabilitiesNew = &reason{
		name: "capabilities_new", code: connect.CodeFailedPrecondition, status: http.StatusConflict,
		title: "the version asks for capabilities that the installed one does not have",
		hint:  "look at them, and accept them with `--accept-capabilities`; nothing was changed", sentinels: []error{pkgstore.ErrCapabilities},
	}
	reasonDependencyMissing = &reason{
		name: "dependency_missing", code: connect.CodeFailedPrecondition, status: http.StatusConflict,
		title: "what the package depends on is not there, or is installed in another version",
		hint:  "publish or install what the message names", sentinels: []error{pkgstore.ErrDependency},
	}
	reasonNotInstalled = &reason{
		name: "package_not_installed", code: connect.CodeNotFound,
		title: "the tenant does not have the package installed",
		hint:  "see `maestro pkg list --installed`; nothing was changed", sentinels: []error{pkgstore.ErrNotInstalled},
	}
	reasonNoHistory = &reason{
		name: "no_earlier_version", code: connect.CodeFailedPrecondition, status: http.StatusConflict,
		title: "there is no earlier version to go back to",
		hint:  "install the version that you want with `--allow-downgrade`; nothing was changed", sentinels: []error{pkgstore.ErrNoHistory},
	}
	reasonInstallChanged = &reason{
		name: "install_changed", code: connect.CodeAborted,
		title: "another change of the install got in between",
		hint:  "look at what is installed now and repeat; nothing was changed", retryAfterMs: 50, sentinels: []error{pkgstore.ErrInstallChanged},
	}
	reasonNameConfusable = &reason{
		name: "name_confusable", code: connect.CodeAlreadyExists,
		title: "another package has a name that reads the same",
		hint:  "choose a name that nobody takes for the other; nothing was changed", sentinels: []error{pkgstore.ErrConfusable},
	}
	reasonUploadUnknown = &reason{
		name: "upload_unknown", code: connect.CodeAborted,
		title: "the upload is not known, goes on elsewhere, or is not whole",
		hint:  "begin the upload again: what has arrived is kept for an hour, and its answer says where to go on", sentinels: []error{pkgstore.ErrUpload},
	}
	reasonCatalogFull = &reason{
		name: "catalog_full", code: connect.CodeResourceExhausted, status: http.StatusInsufficientStorage,
		title: "the catalog may not grow, as the message says",
		hint:  "uploads that nobody publishes expire within an hour; else an operator raises packages.bytes_max on every node; nothing was changed", sentinels: []error{pkgstore.ErrFull},
	}
	reasonContentDamaged = &reason{
		name: "content_damaged", code: connect.CodeDataLoss,
		title: "the kept bytes are not those that were published: nothing of the package is used",
		hint:  "publish the same file again under another version, and have an operator look at the nodes' disks", sentinels: []error{pkgstore.ErrContent},
	}
	reasonTrustKeyExists = &reason{
		name: "trust_key_exists", code: connect.CodeAlreadyExists,
		title: "the trust key is there, with other settings, or revoked",
		hint:  "make a new key with `maestro pkg keygen`: what a key may do never changes; nothing was changed", sentinels: []error{pkgstore.ErrKeyExists},
	}
	reasonTrustKeyUnknown = &reason{
		name: "trust_key_unknown", code: connect.CodeNotFound,
		title: "there is no such trust key",
		hint:  "see `maestro pkg keys list`; nothing was changed", sentinels: []error{pkgstore.ErrNoKey},
	}
	reasonPackageField = &reason{
		name: "package_field_malformed", code: connect.CodeInvalidArgument,
		title: "an argument about a package or a key cannot be",
		hint:  "mend what the message names; nothing was changed", sentinels: []error{pkgstore.ErrField},
	}
	reasonArchiveChanged = &reason{
		name: "archive_changed", code: connect.CodeAborted,
		title: "the package's file has got another signature since the download began",
		hint:  "begin the download again; the content is the same",
	}
)

// formHint is for whoever made a package that is not well-formed.
const formHint = "build it with `maestro pkg build`, and look with `maestro pkg verify`; nothing was stored"

// trustHint is for whoever wants to use a package that nobody trusted has signed.
const trustHint = "see `maestro pkg keys list` and `maestro pkg show`; sign it with a key that is trusted for its name; nothing was changed"

// packageCodes are what mwpkg refuses. The reason is its code.
var packageCodes = []struct {
	code        mwpkg.Code
	title, hint string
}{
	{mwpkg.CodeTooLarge, "the archive, its content or a file in it is too large", formHint},
	{mwpkg.CodeGzip, "the archive is not one plain gzip member", formHint},
	{mwpkg.CodeTrailing, "there are bytes behind the end of the archive", formHint},
	{mwpkg.CodeTar, "the archive is no tar that can be read", formHint},
	{mwpkg.CodeEntryType, "the archive holds something else than regular files", formHint},
	{mwpkg.CodePath, "a path leaves the package, or is read differently by different systems", formHint},
	{mwpkg.CodePathConflict, "two paths cannot exist beside each other everywhere", formHint},
	{mwpkg.CodeTooManyFiles, "the archive has too many files", formHint},
	{mwpkg.CodeNotCanonical, "the archive is not written in the one way that is allowed", formHint},
	{mwpkg.CodeFileMissing, "a file is missing", formHint},
	{mwpkg.CodeFileUnlisted, "a file is there that nothing names", formHint},
	{mwpkg.CodeSums, "SHA256SUMS is not written as it must be", formHint},
	{mwpkg.CodeSumsMismatch, "a file is not the one that SHA256SUMS lists", formHint},
	{mwpkg.CodeReadme, "README.md is not plain text, or has active content", formHint},
	{mwpkg.CodeFilename, "name or version are not those that were asked for", formHint},
	{mwpkg.CodeManifest, "manifest.yaml is not a manifest", formHint},
	{mwpkg.CodeName, "the name of the package is not allowed", formHint},
	{mwpkg.CodeVersion, "the version is not a semantic version", formHint},
	{mwpkg.CodeEngine, "the range of engine versions cannot be met", formHint},
	{mwpkg.CodeInput, "an input or output is declared wrongly", formHint},
	{mwpkg.CodeReference, "something is named that is not there", formHint},
	{mwpkg.CodeExpression, "an expression stands where none may be, or is none", formHint},
	{mwpkg.CodeUndeclared, "something is used that the capabilities do not declare", formHint},
	{mwpkg.CodeUnused, "a capability is declared that nothing uses", formHint},
	{mwpkg.CodeSecret, "a secret stands in the text", formHint},
	{mwpkg.CodeDigest, "an image, a dependency or a digest is not a SHA-256", formHint},
	{mwpkg.CodeExample, "an example does not fit the manifest", formHint},
	{mwpkg.CodeValue, "values do not fit the declared inputs", formHint},
	{mwpkg.CodeSignatureMissing, "nobody has signed the package", "sign it with `maestro pkg sign`; nothing was stored"},
	{mwpkg.CodeSignatureMalformed, "a signature cannot be read", trustHint},
	{mwpkg.CodeSignatureForm, "a signature is not written in the one way that is allowed", trustHint},
	{mwpkg.CodeSignatureInvalid, "the key did not sign this content", trustHint},
	{mwpkg.CodeSignatureFile, "the folder signatures holds a file that does not belong there", formHint},
	{mwpkg.CodeBundle, "a sigstore bundle cannot be read", formHint},
	{mwpkg.CodeBundleMismatch, "signature and bundle say different things", formHint},
	{mwpkg.CodeKeyUnknown, "no trusted key has signed the package", trustHint},
	{mwpkg.CodeKeyScope, "the key may not sign for this publisher", trustHint},
	{mwpkg.CodeKeyNotYet, "the key is not valid yet", trustHint},
	{mwpkg.CodeKeyExpired, "the key was not valid any more", trustHint},
	{mwpkg.CodeKeySuperseded, "the key was replaced before it signed this", trustHint},
	{mwpkg.CodeKeyCompromised, "the key is in wrong hands: nothing that it signed counts", "have the package signed by another key, with `maestro pkg keys rotate`; nothing was changed"},
	{mwpkg.CodeKey, "the key cannot be read, or is not ECDSA P-256", "make one with `maestro pkg keygen`; nothing was changed"},
	{mwpkg.CodeKeyPassword, "the password does not open the key", "give the right one; nothing was changed"},
	{mwpkg.CodeTrust, "the trust file cannot be read", "compare it with docs/packages.md"},
}

// signatureCodes are about who signed, not about the form: the archive may be good.
var signatureCodes = map[mwpkg.Code]bool{
	mwpkg.CodeSignatureMissing: true, mwpkg.CodeSignatureInvalid: true, mwpkg.CodeKeyUnknown: true, mwpkg.CodeKeyScope: true,
	mwpkg.CodeKeyNotYet: true, mwpkg.CodeKeyExpired: true, mwpkg.CodeKeySuperseded: true, mwpkg.CodeKeyCompromised: true,
}

// packageReasons are the rows of the catalog and of the package format.
func packageReasons() []*reason {
	all := []*reason{
		reasonPackageUnknown, reasonVersionConflict, reasonVersionYanked, reasonVersionBlocked, reasonVersionOlder, reasonCapabilitiesNew,
		reasonDependencyMissing, reasonNotInstalled, reasonNoHistory, reasonInstallChanged, reasonNameConfusable, reasonUploadUnknown,
		reasonCatalogFull, reasonContentDamaged, reasonTrustKeyExists, reasonTrustKeyUnknown, reasonPackageField, reasonArchiveChanged,
	}
	for _, c := range packageCodes {
		r := &reason{
			name: string(c.code), code: connect.CodeInvalidArgument, title: c.title, hint: c.hint,
			sentinels: []error{&mwpkg.Error{Code: c.code}},
		}
		switch {
		case c.code == mwpkg.CodeTooLarge:
			r.status = http.StatusRequestEntityTooLarge
		case signatureCodes[c.code]:
			r.code, r.status = connect.CodeFailedPrecondition, http.StatusUnprocessableEntity
		}
		all = append(all, r)
	}
	return all
}
