package trace

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func oracle(requests ...[4]int64) []byte {
	var b []byte
	for _, q := range requests {
		b = binary.LittleEndian.AppendUint32(b, uint32(q[0]))
		b = binary.LittleEndian.AppendUint64(b, uint64(q[1]))
		b = binary.LittleEndian.AppendUint32(b, uint32(q[2]))
		b = binary.LittleEndian.AppendUint64(b, uint64(q[3]))
	}
	return b
}

func samples() map[Format][]byte {
	return map[Format][]byte{
		OracleGeneral: oracle([4]int64{100, 7, 4096, 2}, [4]int64{100, 8, 512, -1}, [4]int64{103, 7, 4096, -1}),
		Cache2k:       {0, 0, 0, 5, 0, 0, 1, 0},
		Keys:          []byte("one\ntwo\r\n\none"),
	}
}

func read(b []byte, f Format) (*Log, error) {
	l := &Log{}
	return l, l.read(bytes.NewReader(b), f, 0)
}

func zipped(t testing.TB, b []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func zstded(t testing.TB, b []byte) []byte {
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(b, nil)
}

func TestFormats(t *testing.T) {
	want := map[Format]string{OracleGeneral: "7,8,7", Cache2k: "5,256", Keys: "one,two,one"}
	for f, sample := range samples() {
		for how, b := range map[string][]byte{"plain": sample, "gz": zipped(t, sample), "zst": zstded(t, sample)} {
			l, err := read(b, f)
			if err != nil {
				t.Errorf("%s, %s: %v", f, how, err)
				continue
			}
			var got []string
			for _, k := range l.Keys {
				got = append(got, l.Names[k])
			}
			if s := strings.Join(got, ","); s != want[f] {
				t.Errorf("%s, %s: read %s, not %s", f, how, s, want[f])
			}
			if f == OracleGeneral && !slices.Equal(l.Sizes, []int32{4096, 512}) {
				t.Errorf("sizes %v", l.Sizes)
			}
		}
	}
}

// TestDamage checks that each error names what is wrong, and that the requests before it are kept.
func TestDamage(t *testing.T) {
	three := samples()[OracleGeneral]
	gz := zipped(t, bytes.Repeat(samples()[Cache2k], 5000))
	for what, c := range map[string]struct {
		b      []byte
		format Format
		before int // requests read before the damage; -1: some
		says   string
	}{
		"cut within a record": {three[:60], OracleGeneral, 2, "ends within a request"},
		"next access before":  {oracle([4]int64{1, 1, 1, -1}, [4]int64{1, 2, 1, 0}), OracleGeneral, 1, "come again"},
		"huge value":          {oracle([4]int64{1, 1, 1<<32 - 1, -1}), OracleGeneral, 0, "bytes"},
		"empty":               {nil, OracleGeneral, 0, "empty"},
		"empty text":          {[]byte("\n\n"), Keys, 0, "empty"},
		"cut gzip":            {gz[:len(gz)/2], Cache2k, -1, "ends within"},
		"damaged gzip":        {[]byte{0x1f, 0x8b, 0, 0}, Cache2k, 0, "gzip header"},
		"odd length":          {samples()[Cache2k][:7], Cache2k, 1, "ends within a request"},
		"binary as keys":      {three, Keys, 0, "no text has"},
		"a line without end":  {bytes.Repeat([]byte("x"), 200_000), Keys, 0, "a key of more"},
		"a long key":          {bytes.Repeat([]byte("x"), 2000), Keys, 0, "a key of more"},
		"an unknown format":   {three, "tape", 0, "oraclegeneral"},
	} {
		l, err := read(c.b, c.format)
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", what, err)
		}
		if n := len(l.Keys); c.before >= 0 && n != c.before || c.before < 0 && n == 0 {
			t.Errorf("%s: %d requests before it, %v", what, n, err)
		}
	}
}

func TestLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "trace")
	if _, err := Load(path, Keys, 0); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	if err := os.WriteFile(path, zstded(t, samples()[Keys]), 0o600); err != nil {
		t.Fatal(err)
	}
	if l, err := Load(path, Keys, 2); err != nil || len(l.Keys) != 2 {
		t.Errorf("%d requests of at most 2, %v", len(l.Keys), err)
	}
	if l, err := Load(path, Cache2k, 0); err == nil || len(l.Keys) != 3 || !strings.Contains(err.Error(), path+": after 3 requests: it ends within") || !strings.Contains(err.Error(), "is it a cache2k trace?") {
		t.Errorf("%d requests in another format, %v", len(l.Keys), err)
	}
}

// FuzzRead checks that reading any bytes terminates without a panic, and that what it returns is consistent.
func FuzzRead(f *testing.F) {
	for format, sample := range samples() {
		for _, b := range [][]byte{sample, zipped(f, sample), zstded(f, sample), sample[:len(sample)-1]} {
			f.Add(string(format), b)
		}
	}
	f.Fuzz(func(t *testing.T, format string, b []byte) {
		l, _ := read(b, Format(format)) // damage is expected
		if len(l.Names) != len(l.Sizes) {
			t.Fatalf("%d names and %d sizes", len(l.Names), len(l.Sizes))
		}
		for _, k := range l.Keys {
			if int(k) >= len(l.Names) || len(l.Names[k]) > maxKey || l.Sizes[k] < 0 {
				t.Fatalf("an impossible request for key %d", k)
			}
		}
	})
}
