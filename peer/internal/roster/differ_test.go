package roster

import (
	"fmt"
	"testing"
	"time"

	"github.com/weircache/weir/ring"
)

// TestViewsThatDiffer checks that a member whose answers show another view for long is reported, and that the node is not
// ready if most members do.
func TestViewsThatDiffer(t *testing.T) {
	view, err := ring.New([]ring.Member{{Name: "a", Addr: "10.0.0.1:1"}, {Name: "b", Addr: "10.0.0.2:1"}, {Name: "c", Addr: "10.0.0.3:1"}, {Name: "d", Addr: "10.0.0.4:1"}}, ring.Config{Partitions: 7})
	if err != nil {
		t.Fatal(err)
	}
	var d differences
	now := time.Now()
	step := func(after time.Duration, long string, news, most bool) {
		t.Helper()
		now = now.Add(after)
		names, isNews, again := d.look(view, now)
		if fmt.Sprint(names) != long || isNews != news || (d.mostly() != nil) != most || (d.count.Load() > 0) != (again > 0) {
			t.Errorf("%v (news %v, most %v, again after %v), want %v (news %v, most %v)", names, isNews, d.mostly(), again, long, news, most)
		}
	}
	step(0, "[]", false, false)
	for _, name := range []string{"b", "c", "gone"} {
		if !d.note(name, false, now) || d.note(name, false, now) {
			t.Error("it is not the first one, or the first one twice")
		}
	}
	step(differLong-1, "[]", false, false)
	d.note("b", false, now)
	step(1, "[]", false, false) // the last answer of b came less than differLong after its first
	d.note("b", false, now)
	step(0, "[b]", true, false)
	step(0, "[b]", false, false)
	d.note("c", false, now)
	step(0, "[b c]", true, true)
	d.note("c", true, now)
	step(0, "[b]", true, false)
	step(differFor+1, "[]", true, false) // no answer from it
	step(0, "[]", false, false)

	three, err := view.Next(view.Members()[:3])
	if err != nil {
		t.Fatal(err)
	}
	var half differences
	half.note("b", false, now)
	half.note("b", false, now.Add(differLong))
	if long, _, _ := half.look(three, now.Add(differLong)); len(long) != 1 || half.mostly() != nil {
		t.Errorf("%v differs, which is half of the others; most: %v", long, half.mostly())
	}
}
