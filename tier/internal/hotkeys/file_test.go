package hotkeys_test

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/tier/internal/hotkeys"
)

// magic begins each file.
const magic = "weir hot keys\n"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// parse returns the keys of a file that consists of b. It uses the file at path.
func parse(t testing.TB, path string, b []byte, namespace string) ([]string, error) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(path) // some file systems flush a file that is truncated and written again
	return hotkeys.Read(path, namespace)
}

// resum gives a changed file the right checksum.
func resum(b []byte) []byte {
	b = bytes.Clone(b)
	end := len(b) - crc32.Size
	binary.BigEndian.PutUint32(b[end:], crc32.Checksum(b[:end], castagnoli))
	return b
}

func TestHotFile(t *testing.T) {
	keys := []string{"a", "héé", "\x00", strings.Repeat("k", codec.MaxKey)}
	b, kept := hotkeys.Append(nil, "product", keys)
	path := filepath.Join(t.TempDir(), "hot")
	got, err := parse(t, path, b, "product")
	if err != nil || kept != 4 || !slices.Equal(got, keys) {
		t.Fatalf("%q, %d, %v", got, kept, err)
	}
	b, _ = hotkeys.Append(nil, "product", []string{"a", "héé", "\x00", "kkkkkkkk"})
	for i := range b { // CRC-32 detects each change of one byte
		bad := bytes.Clone(b)
		bad[i] ^= 0x40
		if _, err := parse(t, path, bad, "product"); err == nil {
			t.Errorf("byte %d changed, no error", i)
		}
		if _, err := parse(t, path, b[:i], "product"); err == nil {
			t.Errorf("cut at %d, no error", i)
		}
	}
	version := bytes.Clone(b)
	version[len(magic)] = 2
	for name, bad := range map[string][]byte{
		"":                           nil,
		"version 2":                  version,
		"left over":                  resum(append(bytes.Clone(b), 0)),
		"number of keys is wrong":    resum(append([]byte(magic+"\x01\x07product\xff\xff\x03"), 0, 0, 0, 0)),
		"before its end is wrong":    resum(append([]byte(magic+"\x01\x07product\x02\x01a\x00"), 0, 0, 0, 0)),
		"a length":                   resum(append([]byte(magic+"\x01\x07product\x01\x81\x08"+strings.Repeat("k", codec.MaxKey+1)), 0, 0, 0, 0)),
		"not a list of hot keys":     []byte(magic + "\x01abc"),
		"a length 0 bytes before":    resum([]byte(magic + "\x01abcd")),
		"keys is wrong":              resum([]byte(magic + "\x01\x07productabcd")),
		"a length 2 bytes before":    resum([]byte(magic + "\x01\x07product\x01\x02aabcd")),
		"is of the namespace \"ab\"": resum(append([]byte(magic+"\x01\x02ab\x00"), 0, 0, 0, 0)),
		"more than":                  make([]byte, 0),
	} {
		if name == "more than" {
			bad = append([]byte(magic), make([]byte, hotkeys.MaxFile)...)
		}
		if _, err := parse(t, path, bad, "product"); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// A file has as many of the first keys as a reader accepts.
func TestHotFileBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hot")
	same := func(n, size int) (keys []string) {
		for range n {
			keys = append(keys, strings.Repeat("k", size))
		}
		return keys
	}
	name := strings.Repeat("n", codec.MaxNamespace)
	const beside = len(magic) + 1 + 2 + codec.MaxNamespace + 2 + crc32.Size
	const full = (hotkeys.MaxFile - beside) / (2 + 1000) // keys of 1000 bytes fit
	const left = (hotkeys.MaxFile - beside) % (2 + 1000)
	for _, x := range []struct {
		keys []string
		kept int
	}{
		{same(hotkeys.MaxKeys, 1), hotkeys.MaxKeys},
		{same(hotkeys.MaxKeys+5, 400), hotkeys.MaxKeys},
		{same(full+1, 1000), full},
		{append(same(full, 1000), same(1, left-2)...), full + 1}, // to the last byte
		{append(same(full, 1000), same(1, left-1)...), full},
		{append(same(full, 1000), append(same(1, left-1), "k")...), full},
	} {
		b, kept := hotkeys.Append([]byte("before"), name, x.keys)
		b = b[len("before"):]
		if got, err := parse(t, path, b, name); err != nil || !slices.Equal(got, x.keys[:kept]) || kept != x.kept || len(b) > hotkeys.MaxFile {
			t.Errorf("%d of %d keys kept, want %d; %d bytes, %v", kept, len(x.keys), x.kept, len(b), err)
		}
		if kept == full+1 && len(b) != hotkeys.MaxFile {
			t.Errorf("a full file has %d of %d bytes", len(b), hotkeys.MaxFile)
		}
	}
}

func TestHotFileWrite(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "hot")
	if err := os.WriteFile(path, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	b, _ := hotkeys.Append(nil, "n", []string{"a"})
	if err := hotkeys.Write(path, b); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if keys, err := hotkeys.Read(path, "n"); err != nil || len(keys) != 1 {
		t.Errorf("%q, %v", keys, err)
	}
	taken := filepath.Join(dir, "taken") // a directory with something in it cannot be replaced
	if err := os.MkdirAll(filepath.Join(taken, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := hotkeys.Write(taken, b); err == nil {
		t.Error("a directory was replaced")
	}
	if _, err := hotkeys.Read(taken, "n"); err == nil || !strings.Contains(err.Error(), "regular") {
		t.Errorf("%v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// Reading a file ends with valid and bounded keys or with an error, whatever the file has.
func FuzzHotFile(f *testing.F) {
	for _, keys := range [][]string{nil, {"a"}, {"a", "bb", strings.Repeat("c", codec.MaxKey)}} {
		b, _ := hotkeys.Append(nil, "n", keys)
		f.Add(b, false)
		f.Add(b[:len(b)/2], true)
	}
	f.Add([]byte(magic+"\x01\x01n\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01    "), true)
	f.Add([]byte(magic+"\x01\xff\xff\xff\xff\xff\xff\xff\xff\x7fn\x00    "), true)
	path := filepath.Join(f.TempDir(), "hot")
	f.Fuzz(func(t *testing.T, b []byte, sum bool) {
		if sum && len(b) >= crc32.Size { // without a valid checksum no change would be parsed
			b = resum(b)
		}
		keys, err := parse(t, path, b, "n")
		if err != nil {
			return
		}
		for _, key := range keys {
			if key == "" || len(key) > codec.MaxKey {
				t.Errorf("key %q", key)
			}
		}
		again, kept := hotkeys.Append(nil, "n", keys)
		if kept != len(keys) || len(again) > len(b) {
			t.Errorf("%d of %d keys, %d of %d bytes", kept, len(keys), len(again), len(b))
		}
	})
}
