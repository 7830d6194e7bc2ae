package mwpkg

// Codes of archives.
const (
	CodeTooLarge     Code = "package_too_large"  // archive, content or a file above its limit, or too much of it for its archive
	CodeGzip         Code = "gzip_invalid"       // not one plain gzip member
	CodeTrailing     Code = "trailing_data"      // bytes after the end of the gzip member or of the tar
	CodeTar          Code = "tar_invalid"        // truncated, wrong checksum, no end
	CodeEntryType    Code = "entry_type_refused" // anything but a regular file: link, device, folder, extended header
	CodePath         Code = "path_refused"       // a path that leaves the folder or that systems read differently
	CodePathConflict Code = "path_conflict"      // two paths that cannot exist beside each other everywhere
	CodeTooManyFiles Code = "too_many_files"     // more than MaxFiles
	CodeNotCanonical Code = "not_canonical"      // a readable tar that is not how this package is written
	CodeFileMissing  Code = "file_missing"       // a file that every package has, or that the manifest or SHA256SUMS names
	CodeFileUnlisted Code = "file_unlisted"      // a file that SHA256SUMS or the manifest does not name
	CodeSums         Code = "sums_invalid"       // SHA256SUMS is not written as it must be
	CodeSumsMismatch Code = "sums_mismatch"      // a file is not the one that was listed
	CodeReadme       Code = "readme_refused"     // README.md with active content, or not text
	CodeFilename     Code = "filename_mismatch"  // name or version differ from the file's name or from what was asked for
)

// Codes of manifests and examples.
const (
	CodeManifest   Code = "manifest_invalid"      // not the YAML, or not the shape, of a manifest
	CodeName       Code = "name_invalid"          // a package name that is not allowed
	CodeVersion    Code = "version_invalid"       // not a version
	CodeEngine     Code = "engine_invalid"        // not a range of versions, or one that no version is in
	CodeInput      Code = "input_invalid"         // an input or output that is declared wrongly
	CodeReference  Code = "reference_invalid"     // a step, input or output is named that is not there or not there yet
	CodeExpression Code = "expression_refused"    // an expression where none may stand, or not one
	CodeUndeclared Code = "capability_undeclared" // used and not declared
	CodeUnused     Code = "capability_unused"     // declared and not used
	CodeSecret     Code = "secret_literal"        // a secret in the text
	CodeDigest     Code = "digest_required"       // an image or dependency that is not named by digest
	CodeExample    Code = "example_invalid"       // an example that does not fit the manifest
	CodeValue      Code = "value_invalid"         // values for inputs that do not fit their declaration
)

// Codes of signatures, keys and trust.
const (
	CodeSignatureMissing   Code = "signature_missing"       // nobody has signed
	CodeSignatureMalformed Code = "signature_malformed"     // not base64, not an ECDSA signature, or one of its parts is missing
	CodeSignatureForm      Code = "signature_not_canonical" // a signature that is written in another than the one allowed way
	CodeSignatureInvalid   Code = "signature_invalid"       // the key did not sign this content
	CodeSignatureFile      Code = "signature_file_refused"  // a file in signatures that does not belong there
	CodeBundle             Code = "bundle_invalid"          // not a bundle of the kind that is read
	CodeBundleMismatch     Code = "bundle_mismatch"         // bundle and signature say different things
	CodeKeyUnknown         Code = "key_unknown"             // no trusted key has signed
	CodeKeyScope           Code = "key_out_of_scope"        // the key is for another publisher
	CodeKeyNotYet          Code = "key_not_yet_valid"       // before the key's window
	CodeKeyExpired         Code = "key_expired"             // after the key's window
	CodeKeySuperseded      Code = "key_superseded"          // signed after the key was replaced
	CodeKeyCompromised     Code = "key_compromised"         // the key is in wrong hands: nothing that it signed counts
	CodeKey                Code = "key_refused"             // not an ECDSA P-256 key, or a key file that cannot be read
	CodeKeyPassword        Code = "key_password"            // the password does not open the key file
	CodeTrust              Code = "trust_invalid"           // a trust file that cannot be read
)
