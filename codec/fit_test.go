package codec

import (
	"math/big"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
)

type (
	hidden   struct{ name string }
	mixed    struct{ Name, note string }
	embeds   struct{ hidden }
	promoted struct{ mixed }
	locked   struct {
		sync.Mutex
		Name string
	}
	list struct {
		Next  *list
		Value []map[string]*hidden
	}
	branch struct {
		Left, Right *branch
		Any         any
		At          time.Time
		Addr        netip.Addr
		Big         big.Int
		Raw         []byte
		Empty       struct{}
	}
	left struct {
		Done chan int `msgpack:"-" json:"-"`
		Name string
	}
	live struct{ Done chan int }
)

var _ = []any{hidden{"a"}, mixed{"a", "b"}, embeds{hidden{"a"}}} // only reflection uses their fields

// TestCheck checks that Check rejects types that cannot be encoded, before any value exists, and accepts the
// others.
func TestCheck(t *testing.T) {
	check := func(name, want string, msgpack, json error) {
		t.Helper()
		for codec, err := range map[string]error{"msgpack": msgpack, "json": json} {
			switch {
			case want == "" && err != nil:
				t.Errorf("%s of %s: %v", codec, name, err)
			case want != "" && (err == nil || !strings.HasPrefix(err.Error(), want)):
				t.Errorf("%s of %s: %v, want %s", codec, name, err, want)
			}
		}
	}
	check("hidden", "codec.hidden: no field", checkOf(Msgpack[hidden]()), checkOf(JSON[hidden]()))
	check("*hidden", "*codec.hidden: no field", checkOf(Msgpack[*hidden]()), checkOf(JSON[*hidden]()))
	check("embeds", "codec.embeds: no field", checkOf(Msgpack[embeds]()), checkOf(JSON[embeds]()))
	check("list", "codec.list.Value[][]: no field", checkOf(Msgpack[list]()), checkOf(JSON[list]()))
	check("live", "codec.live.Done: a chan int", checkOf(Msgpack[live]()), checkOf(JSON[live]()))
	check("func", "func(): a func()", checkOf(Msgpack[func()]()), checkOf(JSON[func()]()))
	check("complex", "[]complex128[]: a complex128", checkOf(Msgpack[[]complex128]()), checkOf(JSON[[]complex128]()))
	check("mixed", "", checkOf(Msgpack[mixed]()), checkOf(JSON[mixed]()))
	check("promoted", "", checkOf(Msgpack[promoted]()), checkOf(JSON[promoted]()))
	check("locked", "", checkOf(Msgpack[*locked]()), checkOf(JSON[*locked]()))
	check("branch", "", checkOf(Msgpack[branch]()), checkOf(JSON[branch]()))
	check("left", "", checkOf(Msgpack[left]()), checkOf(JSON[left]()))
	check("any", "", checkOf(Msgpack[any]()), checkOf(JSON[any]()))
	check("error", "error: a error cannot be decoded", checkOf(Msgpack[error]()), checkOf(JSON[error]()))

	packed, err := Compressed(Msgpack[hidden](), Compression{})
	if err != nil {
		t.Fatal(err)
	}
	if checkOf(packed) == nil {
		t.Error("a compressed codec does not ask its inner one")
	}
}

func checkOf[V any](c Codec[V]) error { return c.(Checker).Check() }
