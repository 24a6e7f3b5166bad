package codec

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/vmihailenco/msgpack/v5"
)

type (
	planInner struct{ A, B int }
	planTimes struct{ At, Until time.Time }
	planDeep  struct {
		planInner
		C string
	}
	planShadow struct {
		A string
		planInner
	}
	planForced struct {
		A         string
		planInner `msgpack:",inline"`
	}
	planKept struct {
		PlanNamed `msgpack:",noinline"`
		C         int
	}
	PlanNamed  struct{ X, Y string }
	planBehind struct {
		*PlanNamed
		Z int
	}
	planTags struct {
		Skipped int `msgpack:"-"`
		hidden  int
		Named   int `msgpack:"n,omitempty,alias:m"`
		Last    []byte
	}
	planText  struct{ V int }
	planMixed struct {
		planText
		C int
	}
	planNode struct {
		Next *planNode
		Kids []planNode
	}
	planWide struct {
		Room [1024]int64
		N    int
	}
)

func (t planText) MarshalText() ([]byte, error)  { return []byte{byte('0' + t.V)}, nil }
func (t *planText) UnmarshalText(b []byte) error { t.V = len(b); return nil }

// TestPlanFieldsAreTheEncoders checks that the plan has the encoder's fields: the same number, in the same
// order.
func TestPlanFieldsAreTheEncoders(t *testing.T) {
	_ = planTags{hidden: 1}
	for _, v := range []any{
		struct{}{}, planInner{}, planTimes{}, planDeep{}, planShadow{}, planForced{}, planKept{},
		planBehind{}, planTags{}, planMixed{}, planNode{}, planWide{},
	} {
		t.Run(reflect.TypeOf(v).String(), func(t *testing.T) {
			var out appender
			enc := msgpack.NewEncoder(&out)
			enc.UseArrayEncodedStructs(true)
			if err := enc.Encode(v); err != nil {
				t.Fatal(err)
			}
			o, err := readObject(out.b, 0)
			p := planOf(reflect.TypeOf(v))
			if err != nil || o.code == 0xc4 && p.kind == planAny {
				return // encodes itself through the text method that it embeds
			}
			if p.kind != planStruct || len(p.fields) != int(o.length) {
				t.Fatalf("a plan of kind %d with %d fields, encoded are %d", p.kind, len(p.fields), o.length)
			}
		})
	}
}

// planMeasure returns whether b is rejected, the maximum that decoding it into a V may allocate, and what it
// did allocate.
func planMeasure[V any](t *testing.T, b []byte) (refused bool, most, did uint64) {
	t.Helper()
	c := Msgpack[V]()
	c.Decode(b) // fills msgpack's caches for the type
	var err error
	did = allocated(func() { _, err = c.Decode(b) })
	most = uint64(allocFloor + min(len(b)*allocRatio, allocMost) + 8*len(b) + 64<<10)
	return err != nil, most, did
}

// TestPlanBoundsCraftedBytes checks that what crafted bytes make a decoder allocate is bounded by their
// length, whatever the type.
func TestPlanBoundsCraftedBytes(t *testing.T) {
	repeat := func(n int, b ...byte) []byte {
		out := array32(uint32(n))
		for range n {
			out = append(out, b...)
		}
		return out
	}
	check := func(name string, wantRefused bool, f func(*testing.T, []byte) (bool, uint64, uint64), b []byte) {
		t.Run(name, func(t *testing.T) {
			refused, most, did := f(t, b)
			if refused != wantRefused {
				t.Errorf("refused: %t, want %t", refused, wantRefused)
			}
			if did > most {
				t.Errorf("%d bytes allocated for %d, the bound is %d", did, len(b), most)
			}
			t.Logf("%d bytes in, %d allocated, %.0f for each; bound %d", len(b), did, float64(did)/float64(len(b)), most)
		})
	}
	check("nils into wide structs", true, planMeasure[[]planWide], repeat(20_000, 0xc0))
	check("empty arrays into pointers to wide structs", true, planMeasure[[]*planWide], repeat(20_000, 0x90))
	check("nils into wide arrays", true, planMeasure[[][4096]int64], repeat(20_000, 0xc0))
	check("entries of wide structs", true, planMeasure[[]map[string]planWide], repeat(5_000, 0x81, 0xa0, 0xc0))
	check("extension where a map is due", true, planMeasure[map[string]string], []byte{0xd7, 0xff, 0xdf, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0})
	check("extension where a map of anything is due", true, planMeasure[map[string]any], []byte{0xd7, 0xff, 0xdf, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0})
	check("a struct as a map", true, planMeasure[planInner], []byte{0x81, 0xa1, 'A', 1})
	check("nil for a time", true, planMeasure[[]time.Time], []byte{0x91, 0xc0})
	check("text for a method set", true, planMeasure[[]fmt.Stringer], []byte{0x91, 0xa1, 'x'})
	check("a slice as a map's key", true, planMeasure[map[any]int], []byte{0x81, 0x90, 1})
}

// TestPlanAcceptsNarrowValues checks that the output of an encoder is never rejected, even for types that are
// wide in Go and narrow in MessagePack.
func TestPlanAcceptsNarrowValues(t *testing.T)     { acceptsNarrowValues(t, 10_000) }
func TestPlanAcceptsNarrowValuesLong(t *testing.T) { acceptsNarrowValues(t, 200_000) }

// acceptsNarrowValues encodes and decodes values of about n elements.
func acceptsNarrowValues(t *testing.T, n int) {
	t.Helper()
	planNarrow(t, "small ints", make([]int, n))
	planNarrow(t, "empty strings", make([]string, n))
	planNarrow(t, "nil byte slices", make([][]byte, n))
	planNarrow(t, "nil slices", make([][]int, n))
	planNarrow(t, "nil anys", make([]any, n))
	planNarrow(t, "zero times", make([]time.Time, n/10))
	planNarrow(t, "nil pointers to wide structs", make([]*planWide, n))
	planNarrow(t, "structs", make([]planDeep, n/10))
	planNarrow(t, "recursive", planNode{Next: &planNode{}, Kids: make([]planNode, n/10)})
	planNarrow(t, "wide structs", make([]planWide, 20))
	bytesOf1 := make([][]byte, n/10)
	maps := make([]map[string]string, n/10)
	anyMaps := make([]any, n/10)
	structMaps := make([]map[string]planDeep, n/10)
	large := make(map[int]string, n/10)
	for i := range maps {
		bytesOf1[i] = []byte{1}
		maps[i] = map[string]string{"": ""}
		anyMaps[i] = map[string]any{"": nil}
		structMaps[i] = map[string]planDeep{"": {}}
		large[i] = ""
	}
	planNarrow(t, "bytes of one", bytesOf1)
	planNarrow(t, "maps of one", maps)
	planNarrow(t, "anys of maps of one", anyMaps)
	planNarrow(t, "maps of one struct", structMaps)
	planNarrow(t, "a large map", large)
}

func planNarrow[V any](t *testing.T, name string, v V) {
	t.Run(name, func(t *testing.T) {
		b, err := Msgpack[V]().Append(nil, v)
		if err != nil {
			t.Fatal(err)
		}
		refused, most, did := planMeasure[V](t, b)
		if refused || did > most {
			t.Errorf("refused: %t; %d bytes allocated for %d, the bound is %d", refused, did, len(b), most)
		}
		t.Logf("%d bytes in, %d allocated, %.0f for each", len(b), did, float64(did)/float64(len(b)))
	})
}
