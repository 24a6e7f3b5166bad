package trace

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

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

var samples = map[Format][]byte{
	OracleGeneral: oracle([4]int64{100, 7, 4096, 2}, [4]int64{100, 8, 512, -1}, [4]int64{103, 7, 4096, -1}),
	Twitter:       []byte("0,abc,3,120,1,get,0\n1,with,comma,10,0,1,delete,0\n1,abc,3,120,2,set,60\n"),
	ARC:           []byte("10 3 0 0\n7 1 0 1\n"),
	LIRS:          []byte("5\n6\n*\n5\n"),
	Cache2k:       {0, 0, 0, 5, 0, 0, 1, 0},
	Keys:          []byte("one\ntwo\r\n\none"),
}

func load(t testing.TB, b []byte, f Format) (*Log, error) {
	r, err := newReader(bytes.NewReader(b), "sample", f)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}()
	return Load(r, 0)
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
	want := map[Format]string{
		OracleGeneral: "7,8,7", Twitter: "abc,with,comma,abc", ARC: "10,11,12,7", LIRS: "5,6,5", Cache2k: "5,256", Keys: "one,two,one",
	}
	for _, f := range Formats() {
		for how, b := range map[string][]byte{"plain": samples[f], "gz": zipped(t, samples[f]), "zst": zstded(t, samples[f])} {
			l, err := load(t, b, f)
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
		}
	}
}

func TestWhatIsRecorded(t *testing.T) {
	l, err := load(t, samples[OracleGeneral], OracleGeneral)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(l.Sizes, []int32{4096, 512}) || l.At[2] != 3*time.Second {
		t.Errorf("sizes %v, times %v", l.Sizes, l.At)
	}
	l, err = load(t, samples[Twitter], Twitter)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(l.Ops, []Op{Read, Delete, Write}) || !slices.Equal(l.Sizes, []int32{120, 0}) {
		t.Errorf("operations %v, sizes %v", l.Ops, l.Sizes)
	}
}

// TestDamage checks that each error names the place, and that the requests before it are kept.
func TestDamage(t *testing.T) {
	three := samples[OracleGeneral]
	gz := zipped(t, bytes.Repeat(samples[Cache2k], 5000))
	for what, c := range map[string]struct {
		b      []byte
		format Format
		before int // requests read before the damage; -1: some
		offset int64
		says   string
	}{
		"cut within a record":  {three[:60], OracleGeneral, 2, 48, "ends within a request"},
		"time goes back":       {oracle([4]int64{1000, 1, 1, -1}, [4]int64{5, 1, 1, -1}), OracleGeneral, 1, 24, "time goes back"},
		"next access before":   {oracle([4]int64{1, 1, 1, -1}, [4]int64{1, 2, 1, 0}), OracleGeneral, 1, 24, "come again"},
		"huge value":           {oracle([4]int64{1, 1, 1<<32 - 1, -1}), OracleGeneral, 0, 0, "bytes"},
		"empty":                {nil, OracleGeneral, 0, 0, "empty"},
		"empty text":           {nil, Keys, 0, 0, "empty"},
		"cut gzip":             {gz[:len(gz)/2], Cache2k, -1, -1, ""},
		"odd length":           {samples[Cache2k][:7], Cache2k, 1, 4, "ends within a request"},
		"binary as keys":       {three, Keys, 0, 0, "no text has"},
		"keys as twitter":      {samples[Keys], Twitter, 0, 0, "fields"},
		"twitter with no time": {[]byte("0,a,1,1,1,get,0\nx,a,1,1,1,get,0\n"), Twitter, 1, 16, "no time"},
		"twitter, strange op":  {[]byte("0,a,1,1,1,fly,0\n"), Twitter, 0, 0, "no operation"},
		"twitter, no key":      {[]byte("0,,1,1,1,get,0\n"), Twitter, 0, 0, "key of 0 bytes"},
		"arc with three":       {[]byte("1 2 0 0\n1 2 3\n"), ARC, 2, 8, "not 4"},
		"arc, endless":         {[]byte("1 99999999999 0 0\n"), ARC, 0, 0, "blocks"},
		"lirs with words":      {[]byte("1\nhello\n"), LIRS, 1, 2, "no block number"},
		"a line without end":   {bytes.Repeat([]byte("x"), 200_000), Keys, 0, 0, "a line of more"},
		"a long key":           {bytes.Repeat([]byte("x"), 2000), Keys, 0, 0, "a key of 2000"},
	} {
		l, err := load(t, c.b, c.format)
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%s: %v, not an *Error", what, err)
			continue
		}
		if c.before >= 0 && (l.Len() != c.before || e.Offset != c.offset) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %d requests before it, %v", what, l.Len(), err)
		}
		if c.before < 0 && l.Len() == 0 {
			t.Errorf("%s: nothing was kept", what)
		}
	}
	if _, err := load(t, nil, "tape"); err == nil || !strings.Contains(err.Error(), "oraclegeneral") {
		t.Errorf("an unknown format: %v", err)
	}
}

func TestOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "trace")
	if _, err := Open(path, Keys); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	if err := os.WriteFile(path, zstded(t, samples[Keys]), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := Open(path, Keys)
	if err != nil {
		t.Fatal(err)
	}
	l, err := Load(r, 2)
	if err != nil || l.Len() != 2 || r.count != 2 {
		t.Errorf("%d requests of at most 2, %v", l.Len(), err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if _, err := r.Next(); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("after Close: %v", err)
	}
}

// FuzzReader checks that any bytes give requests, io.EOF or an *Error, and that reading terminates.
func FuzzReader(f *testing.F) {
	for i, format := range Formats() {
		f.Add(byte(i), samples[format])
		f.Add(byte(i), zipped(f, samples[format]))
		f.Add(byte(i), zstded(f, samples[format]))
		f.Add(byte(i), samples[format][:len(samples[format])-1])
	}
	f.Add(byte(0), []byte{0x1f, 0x8b, 0, 0})
	f.Add(byte(0), []byte{0x28, 0xb5, 0x2f, 0xfd, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, which byte, b []byte) {
		r, err := newReader(bytes.NewReader(b), "fuzz", Formats()[int(which)%len(Formats())])
		var e *Error
		if err != nil {
			if !errors.As(err, &e) {
				t.Fatalf("%v is no *Error", err)
			}
			return
		}
		defer func() {
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		}()
		at := time.Duration(0)
		for range 10_000 {
			q, err := r.Next()
			if errors.Is(err, io.EOF) && !errors.As(err, &e) {
				return
			}
			if err != nil {
				if !errors.As(err, &e) || e.Offset < 0 {
					t.Fatalf("%v is no *Error with a place", err)
				}
				return
			}
			if q.Size < 0 || q.At < 0 || q.Op > Delete || len(q.Key) > maxKey {
				t.Fatalf("an impossible request %+v", q)
			}
			at = max(at, q.At)
		}
	})
}
