package mwpkg

import (
	"archive/tar"
	"bytes"
	"compress/flate"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// entry is a raw member of a tar: a header that may be wrong, and what follows it.
type entry struct {
	header [block]byte
	data   []byte
}

func file(path, data string) entry { return entry{header(path, len(data)), []byte(data)} }

// with gives the entry with text at a place of its header, and the checksum made right.
func (e entry) with(at int, text string) entry {
	copy(e.header[at:], text)
	copy(e.header[148:], fmt.Sprintf("%06o\x00 ", checksum(e.header[:])))
	return e
}

// kind gives the entry another type and link target.
func (e entry) kind(typeflag byte, link string) entry {
	return e.with(156, string(typeflag)).with(157, link)
}

// named gives the entry a name that header would not write.
func (e entry) named(name string) entry {
	return e.with(0, name+strings.Repeat("\x00", 100-len(name)))
}

func rawTar(entries ...entry) []byte {
	var out []byte
	for _, e := range entries {
		out = append(append(out, e.header[:]...), e.data...)
		out = append(out, make([]byte, padding(len(e.data)))...)
	}
	return append(out, make([]byte, 2*block)...)
}

// zip is content in the one gzip member that a package has.
func zip(t testing.TB, content []byte) []byte {
	t.Helper()
	data, err := compress(content)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// withEntries is the good package with more raw entries, each in its place by its name.
func withEntries(t testing.TB, more ...entry) []byte {
	t.Helper()
	return zip(t, rawTar(slices.Concat(goodEntries(t), more)...))
}

func goodEntries(t testing.TB) []entry {
	t.Helper()
	content, err := decompress(archive(t, build(t, goodFiles())))
	if err != nil {
		t.Fatal(err)
	}
	files, err := readTar(content)
	if err != nil {
		t.Fatal(err)
	}
	var entries []entry
	for _, f := range files {
		entries = append(entries, file(f.Path, string(f.Data)))
	}
	return entries
}

// foreign is the good content in a tar of the standard library, changed by edit.
func foreign(t testing.TB, edit func(*tar.Header)) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, e := range goodEntries(t) {
		name, _, _ := strings.Cut(string(e.header[:100]), "\x00")
		h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(e.data)), Mode: 0o644}
		edit(h)
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(e.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return zip(t, out.Bytes())
}

// stockGzip is content as compress/gzip writes it.
func stockGzip(t testing.TB, content []byte, edit func(*gzip.Header)) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	edit(&w.Header)
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// repeated is a member that holds content n times, and whose end claims a size. The content is compressed once, so that a bomb
// costs nothing to make; the checksum is that of one time.
func repeated(t testing.TB, content []byte, n, claim int) []byte {
	t.Helper()
	var piece bytes.Buffer
	w, err := flate.NewWriter(&piece, flate.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	out := bytes.NewBuffer([]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2, 255})
	out.Write(bytes.Repeat(piece.Bytes(), n))
	out.Write([]byte{3, 0}) // an empty last block
	end := binary.LittleEndian.AppendUint32(nil, crc32.ChecksumIEEE(content))
	out.Write(binary.LittleEndian.AppendUint32(end, uint32(claim)))
	return out.Bytes()
}

// rawGzip is content in a member whose end claims a size.
func rawGzip(t testing.TB, content []byte, claim int) []byte {
	t.Helper()
	return repeated(t, content, 1, claim)
}

// Every archive that is wrong is refused, for the reason that is documented.
func TestBadArchives(t *testing.T) {
	good := rawTar(goodEntries(t)...)
	packed := zip(t, good)
	const last = "zz.txt" // sorts behind the good files
	named := func(name string) []byte { return withEntries(t, file(last, "x").named(name)) }
	typed := func(typeflag byte, link string) []byte {
		return withEntries(t, entry{header: file(last, "").kind(typeflag, link).header})
	}
	pax := func(record string) []byte {
		return withEntries(t, file(last, record).kind('x', ""), file("zzz.txt", "x"))
	}
	flipped := func(at int) []byte {
		out := bytes.Clone(packed)
		out[at] ^= 1
		return out
	}

	for _, c := range []struct {
		id, what string
		data     []byte
		code     Code
	}{
		{"A01", "a path that leaves the folder", named("../x"), CodePath},
		{"A02", "an absolute path", named("/abs"), CodePath},
		{"A03", "a path that goes up on its way", named("a/../../x"), CodePath},
		{"A04", "a drive", named(`C:\x`), CodePath},
		{"A04", "backslashes", named(`a\..\x`), CodePath},
		{"A04", "NUL in the name", withEntries(t, file(last, "x").named("zz\x00.txt")), CodeNotCanonical},
		{"A04", "not UTF-8", named("zz\xff"), CodePath},
		{"A04", "a control character", named("zz\x07"), CodePath},
		{"A04", "a file with a slash at its end", named("zz/"), CodePath},
		{"A04", "a device of Windows", named("zz/con.txt"), CodePath},
		{"A04", "an option", named("zz/-rf"), CodePath},
		{"A04", "a dot at the end", named("zz."), CodePath},
		{"A05", "a symbolic link", typed('2', "../../etc/passwd"), CodeEntryType},
		{"A06", "a symbolic link and a file through it", withEntries(t, entry{header: file("zz", "").kind('2', "/tmp").header}, file("zz/x", "x")), CodeEntryType},
		{"A07", "a hard link to outside", typed('1', "/etc/passwd"), CodeEntryType},
		{"A08", "a character device", typed('3', ""), CodeEntryType},
		{"A08", "a block device", typed('4', ""), CodeEntryType},
		{"A08", "a pipe", typed('6', ""), CodeEntryType},
		{"A08", "a folder", typed('5', ""), CodeEntryType},
		{"A09", "a path twice", withEntries(t, file(last, "x"), file(last, "y")), CodePathConflict},
		{"A10", "two paths that differ in case", withEntries(t, file("zz.TXT", "x"), file(last, "y")), CodePathConflict},
		{"A10", "two folders that differ in case", withEntries(t, file("zZ/a", "x"), file("zz/b", "y")), CodePathConflict},
		{"A11", "a path in NFC", named("zz\u00e9"), CodePath},
		{"A11", "a path in NFD", named("zze\u0301"), CodePath},
		{"A12", "a file and a folder of one name", withEntries(t, file("zz", "x"), file("zz/b", "y")), CodePathConflict},
		{"A13", "a path that begins with a dot", withEntries(t, file("zz", "x").named("./manifest.yaml")), CodePath},
		{"A14", "a PAX header that renames", pax("20 path=manifest.yaml\n"), CodeEntryType},
		{"A15", "a PAX header that resizes", pax("16 size=100000\n"), CodeEntryType},
		{"A16", "a long name of GNU", withEntries(t, file("././@LongLink", "manifest.yaml").kind('L', ""), file("zzz", "x")), CodeEntryType},
		{"A17", "a sparse file of old GNU", typed('S', ""), CodeEntryType},
		{"A17", "a sparse file of PAX", pax("22 GNU.sparse.major=1\n"), CodeEntryType},
		{"A18", "a global PAX header", withEntries(t, file(last, "19 comment=whatever\n").kind('g', "")), CodeEntryType},
		{"A19", "a size in base 256", withEntries(t, file(last, "x").with(124, "\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01")), CodeTar},
		{"A19", "a negative size", withEntries(t, file(last, "x").with(124, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")), CodeTar},
		{"A20", "a wrong checksum of a header", zip(t, bytes.Replace(bytes.Clone(good), []byte("0000644"), []byte("0000645"), 1)), CodeTar},
		{"A21", "a tar that ends within a file", zip(t, good[:block+10]), CodeTar},
		{"A21", "a tar without its end", zip(t, good[:len(good)-2*block]), CodeTar},
		{"A21", "a tar with half of its end", zip(t, good[:len(good)-block]), CodeTar},
		{"A21", "a gzip member that ends early", packed[:len(packed)/2], CodeTooLarge},
		{"A21", "a gzip member without its last byte", packed[:len(packed)-1], CodeTooLarge},
		{"A22", "zeros after the end of the tar", zip(t, append(bytes.Clone(good), make([]byte, 8192)...)), CodeTrailing},
		{"A22", "bytes after the end of the tar", zip(t, append(bytes.Clone(good), "more"...)), CodeTrailing},
		{"A23", "a second tar", zip(t, append(bytes.Clone(good), good...)), CodeTrailing},
		{"A24", "a second gzip member", append(bytes.Clone(packed), packed...), CodeTrailing},
		{"A24", "an empty second gzip member", append(bytes.Clone(packed), zip(t, nil)...), CodeGzip},
		{"A25", "bytes after the gzip member", append(bytes.Clone(packed), "12345678"...), CodeTooLarge},
		{"A25", "zeros after the gzip member", append(bytes.Clone(packed), make([]byte, 512)...), CodeGzip},
		{"A26", "a name in the gzip header", stockGzip(t, good, func(h *gzip.Header) { h.Name = "x" }), CodeGzip},
		{"A26", "an extra field in the gzip header", stockGzip(t, good, func(h *gzip.Header) { h.Extra = []byte("x") }), CodeGzip},
		{"A26", "a comment in the gzip header", stockGzip(t, good, func(h *gzip.Header) { h.Comment = "x" }), CodeGzip},
		{"A26", "a time in the gzip header", stockGzip(t, good, func(h *gzip.Header) { h.ModTime = today }), CodeGzip},
		{"A26", "a wrong checksum of the content", flipped(len(packed) - 6), CodeGzip},
		{"A26", "a wrong size of the content", flipped(len(packed) - 4), CodeGzip},
		{"A27", "a zip", []byte("PK\x03\x04" + strings.Repeat("x", 100)), CodeGzip},
		{"A27", "zstd", []byte("\x28\xb5\x2f\xfd" + strings.Repeat("x", 100)), CodeGzip},
		{"A27", "xz", []byte("\xfd7zXZ\x00" + strings.Repeat("x", 100)), CodeGzip},
		{"A27", "a tar without gzip", good, CodeGzip},
		{"A30", "a path a thousand deep", withEntries(t, file(last, "x").named(strings.Repeat("a/", 49)+"a"), file("zzz", "")), CodePath},
		{"A30", "a path in name and prefix", withEntries(t, file(last, "x").with(345, strings.Repeat("a/", 70)+"a")), CodePath},
		{"A31", "a file that claims the most", withEntries(t, file(last, "x").with(124, "77777777777\x00")), CodeTooLarge},
		{"A31", "a file that claims more than there is", withEntries(t, file(last, "x").with(124, "00007777777\x00")), CodeTar},
		{"A32", "setuid", foreign(t, func(h *tar.Header) { h.Mode = 0o4755 }), CodeNotCanonical},
		{"A32", "an executable", foreign(t, func(h *tar.Header) { h.Mode = 0o755 }), CodeNotCanonical},
		{"A32", "an owner", foreign(t, func(h *tar.Header) { h.Uid, h.Uname = 1000, "ana" }), CodeNotCanonical},
		{"A32", "extended attributes", foreign(t, func(h *tar.Header) { h.PAXRecords = map[string]string{"SCHILY.xattr.user.x": "y"} }), CodeEntryType},
		{"A33", "nothing", nil, CodeGzip},
		{"A33", "an empty gzip member", zip(t, nil), CodeTar},
		{"A33", "an empty tar", zip(t, rawTar()), CodeFileMissing},
		{"A34", "bytes in front", append([]byte("#!/bin/sh\n"), packed...), CodeGzip},
		{"A35", "another order", zip(t, rawTar(append(goodEntries(t)[1:], goodEntries(t)[0])...)), CodeNotCanonical},
		{"A36", "a time", foreign(t, func(h *tar.Header) { h.ModTime = today }), CodeNotCanonical},
		{"A36", "bytes behind a file", zip(t, dirtyPadding(good)), CodeNotCanonical},
	} {
		t.Run(c.id+" "+c.what, func(t *testing.T) {
			p, err := Open(c.data)
			if err == nil {
				t.Fatalf("opened: %s", p.Manifest.Ref())
			}
			if c.code == CodeTooLarge && strings.HasPrefix(c.id, "A2") {
				// The size of the content is now what the last bytes happen to be.
				if !isCode(err, CodeTooLarge) && !isCode(err, CodeGzip) {
					t.Errorf("refused with %v", err)
				}
				return
			}
			wantCode(t, err, c.code)
		})
	}
	if _, err := Open(packed); err != nil {
		t.Fatalf("the good archive is refused: %v", err)
	}
}

// dirtyPadding sets a byte behind the first file's data.
func dirtyPadding(tar []byte) []byte {
	out := bytes.Clone(tar)
	_, size, err := readHeader(out[:block])
	if err != nil {
		panic(err)
	}
	out[block+size] = 1
	return out
}

// Sums that are millions of empty lines are refused by their size alone.
func TestSumsAreBounded(t *testing.T) {
	noise := make([]byte, 330<<10) // so that the ratio is within its bound
	rand.NewChaCha8([32]byte{}).Read(noise)
	data := zip(t, writeTar([]File{{"a", noise}, {SumsPath, bytes.Repeat([]byte("\n"), 31<<20)}}))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := Open(data)
	runtime.ReadMemStats(&after)
	if !isCode(err, CodeSums) {
		t.Errorf("%v, want %s", err, CodeSums)
	}
	if n := after.TotalAlloc - before.TotalAlloc; n > 160<<20 {
		t.Errorf("%d bytes were allocated", n)
	}
}

// Archives that unpack to much are refused before they take memory or time.
func TestBombs(t *testing.T) {
	const mib = 1 << 20
	bomb := func(n, claim int) []byte { return repeated(t, make([]byte, mib), n, claim) }
	tiny := func(n int) []byte {
		entries := make([]entry, n)
		for i := range entries {
			entries[i] = file(fmt.Sprintf("f%06d", i), "")
		}
		return rawTar(entries...)
	}
	thousand := tiny(1000)[:1000*block]
	const many = 100_000 * block
	for _, c := range []struct {
		id, what string
		data     []byte
		code     Code
	}{
		{"A28", "1000:1 that says so", bomb(1000, 1000*mib), CodeTooLarge},
		{"A28", "1000:1 that claims little", bomb(1000, 4096), CodeGzip},
		{"A28", "1000:1 that claims as much as is allowed", bomb(1000, MaxRatioBase), CodeGzip},
		{"A28", "1000:1 within the size that is allowed", bomb(MaxContent/mib, MaxContent), CodeTooLarge},
		{"A28", "a bomb in a bomb", rawGzip(t, bomb(1000, 1000*mib), 1), CodeGzip},
		{"A29", "100,000 entries", repeated(t, thousand, 100, many), CodeTooLarge},
		{"A29", "100,000 entries that claim to be few", repeated(t, thousand, 100, 1000), CodeGzip},
		{"A29", "as many entries as the size allows", zip(t, tiny(MaxFiles+1)), CodeTooManyFiles},
		{"A31", "an archive of more than is allowed", make([]byte, MaxPackage+1), CodeTooLarge},
	} {
		t.Run(c.id+" "+c.what, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			began := cpuTime(t)
			_, err := Open(c.data)
			took := cpuTime(t) - began
			runtime.ReadMemStats(&after)
			wantCode(t, err, c.code)
			// All that was allocated, so no moment had more.
			if n := after.TotalAlloc - before.TotalAlloc; n >= 64<<20 {
				t.Errorf("%d bytes were allocated", n)
			}
			if took >= time.Second {
				t.Errorf("it took %v of processor time", took)
			}
		})
	}
}

// What is too large is not built either.
func TestBuildRefusesWhatWouldNotOpen(t *testing.T) {
	add := func(path, data string) map[string]string {
		files := goodFiles()
		files[path] = data
		return files
	}
	many := goodFiles()
	for i := range MaxFiles {
		many[fmt.Sprintf("more/%d", i)] = "x"
	}
	for name, c := range map[string]struct {
		files map[string]string
		code  Code
	}{
		"too much":        {add("big", strings.Repeat("0123456789abcdef", MaxContent/16)), CodeTooLarge},
		"a bomb":          {add("big", strings.Repeat("0", MaxContent-1<<20)), CodeTooLarge},
		"too many":        {many, CodeTooManyFiles},
		"a bad path":      {add("a b", "x"), CodePath},
		"paths in strife": {add("readme.md", "x"), CodePathConflict},
		"a private key":   {add("cosign.key", "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n"), CodeSecret},
		"another example": {add("examples/more.yaml", goodExample), CodeFileUnlisted},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Build(folder(c.files))
			wantCode(t, err, c.code)
		})
	}
}
