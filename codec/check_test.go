package codec

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"
	"time"

	"github.com/vmihailenco/msgpack/v5"
)

// array32 returns the header of an array of n elements.
func array32(n uint32) []byte { return binary.BigEndian.AppendUint32([]byte{0xdd}, n) }

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// hostile returns bytes that must be rejected, keyed by what is wrong with them.
func hostile() map[string][]byte {
	return map[string][]byte{
		"nothing":              {},
		"array of 2^32-1":      array32(1<<32 - 1),
		"bin of 2^32-1":        {0xc6, 0xff, 0xff, 0xff, 0xff},
		"str of 2^31":          {0xdb, 0x80, 0, 0, 0},
		"ext of 2^32-1":        {0xc9, 0xff, 0xff, 0xff, 0xff, 1},
		"map of 2^31-1":        {0xdf, 0x7f, 0xff, 0xff, 0xff},
		"map of 2^32-1":        {0xdf, 0xff, 0xff, 0xff, 0xff},
		"2,000,000 levels":     bytes.Repeat([]byte{0x91}, 2_000_000),
		"levels in a field":    join([]byte{0x82, 0xa1, 'x'}, bytes.Repeat([]byte{0x91}, 2_000_000), []byte{0xc0, 0xa1, 'y', 0xc0}),
		"levels of maps":       bytes.Repeat([]byte{0x81, 0xa0}, 1_000_000),
		"one level too many":   append(bytes.Repeat([]byte{0x91}, MaxDepth+1), 0xc0),
		"1 MiB of empty maps":  bytes.Repeat([]byte{0x80}, 1<<20),
		"too many elements":    join(array32(MaxElements+1), make([]byte, MaxElements+1)),
		"trailing byte":        {0xc0, 0xc0},
		"never used":           {0xc1},
		"never used, deeper":   {0x91, 0xc1},
		"string cut short":     {0xa3, 'a', 'b'},
		"length cut short":     {0xdd, 0, 0},
		"number cut short":     {0xcf, 0, 0, 0},
		"array cut short":      {0x92, 0xc0},
		"map without a value":  {0x81, 0xa1, 'k'},
		"ext without its type": {0xd4},
		"unknown extension":    {0xd4, 1, 0},
		"time of 5 bytes":      {0xc7, 5, 0xff, 0, 0, 0, 0, 0},
		"interned, index -1":   {0xd6, 0x80, 0xff, 0xff, 0xff, 0xff},
	}
}

func TestCheckMsgpackRefuses(t *testing.T) {
	for name, b := range hostile() {
		t.Run(name, func(t *testing.T) {
			wantErr(t, CheckMsgpack(b), ErrValue)
			if n := allocated(func() { CheckMsgpack(b) }); n > 4<<10 {
				t.Errorf("%d bytes allocated", n)
			}
		})
	}
}

// tokens returns one value with each kind of token, as the library's encoder writes it.
func tokens(t testing.TB) []byte {
	long := func(n int) string { return strings.Repeat("x", n) }
	v := []any{
		nil, true, false, 1, -1, int8(-100), int16(-1000), int32(-100000), int64(-1 << 40), uint8(200), uint16(60000),
		uint32(1 << 31), uint64(1 << 63), float32(1.5), 2.5, "", "short", long(31), long(32), long(256), long(70000),
		[]byte{}, make([]byte, 256), make([]byte, 70000), make([]int, 15), make([]int, 16), make([]int, 70000),
		map[string]int{}, map[string]any{"a": []any{map[string]any{"b": nil}}},
		time.Unix(1, 0), time.Unix(1, 1), time.Unix(-1, 0), msgpack.RawMessage{0xd4, 0x80, 0}, msgpack.RawMessage{0xd5, 0x80, 0, 0},
		msgpack.RawMessage{0xc8, 0, 4, 0xff, 1, 2, 3, 4}, msgpack.RawMessage{0xde, 0, 1, 0xc0, 0xc0},
		msgpack.RawMessage{0xdf, 0, 0, 0, 1, 0xc0, 0xc0}, msgpack.RawMessage{0xdc, 0, 1, 0xc0},
	}
	return ok[[]byte](t)(msgpack.Marshal(v))
}

func TestCheckMsgpackAccepts(t *testing.T) {
	for _, b := range [][]byte{
		{0xc0}, {0x90}, {0x80}, {0xa0}, tokens(t),
		append(bytes.Repeat([]byte{0x91}, MaxDepth), 0xc0),
		append(bytes.Repeat([]byte{0x91}, MaxDepth-1), 0x90),
		join(array32(MaxElements), make([]byte, MaxElements)),
	} {
		if err := CheckMsgpack(b); err != nil {
			t.Errorf("%.20x: %v", b, err)
		}
		if n := testing.AllocsPerRun(3, func() { CheckMsgpack(b) }); n != 0 {
			t.Errorf("%.20x: %v allocations", b, n)
		}
	}
}

// TestCheckMsgpackTruncated checks that a proper prefix of a value and a value with a trailing byte are both
// rejected.
func TestCheckMsgpackTruncated(t *testing.T) {
	b := tokens(t)
	for i := 0; i < len(b); i += 1 + i/500 {
		wantErr(t, CheckMsgpack(b[:i]), ErrValue)
	}
	wantErr(t, CheckMsgpack(append(b, 0)), ErrValue)
}

// TestCheckMsgpackAgreesWithSkip checks CheckMsgpack against another reader of the format: if the check
// accepts a value, the library skips exactly to its end.
func TestCheckMsgpackAgreesWithSkip(t *testing.T) {
	rnd := seeded(t)
	accepted := 0
	for range 200_000 {
		b := make([]byte, 1+rnd.IntN(12))
		for i := range b {
			b[i] = byte(rnd.Uint32())
		}
		b[0] |= 0x80 // make it other than a small number
		if CheckMsgpack(b) != nil {
			continue
		}
		accepted++
		r := bytes.NewReader(b)
		if err := msgpack.NewDecoder(r).Skip(); err != nil || r.Len() != 0 {
			t.Fatalf("% x is accepted; skipped with %v, %d bytes left", b, err, r.Len())
		}
	}
	if accepted < 1000 {
		t.Errorf("only %d accepted", accepted)
	}
}
