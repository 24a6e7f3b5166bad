package ring_test

import (
	"errors"
	"fmt"

	"github.com/weircache/weir/ring"
)

func Example() {
	view, err := ring.New([]ring.Member{
		{Name: "catalog-1", Addr: "10.0.0.1:7946"},
		{Name: "catalog-2", Addr: "10.0.0.2:7946"},
		{Name: "catalog-3", Addr: "10.0.0.3:7946"},
	}, ring.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	owner := view.Owner("sku-42")
	next, _ := view.Successor("sku-42")
	fmt.Println("owner:", owner.Name, owner.Addr)
	fmt.Println("successor:", next.Name)
	fmt.Printf("share: %.0f %%\n", 100*view.Share(owner.Name))

	// The owner is lost, so its keys go to the successor.
	var rest []ring.Member
	for _, m := range view.Members() {
		if m != owner {
			rest = append(rest, m)
		}
	}
	after, err := view.Next(rest)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("new owner:", after.Owner("sku-42").Name)
	// Output:
	// owner: catalog-3 10.0.0.3:7946
	// successor: catalog-2
	// share: 36 %
	// new owner: catalog-2
}

func ExampleView_Diff() {
	old, err := ring.New([]ring.Member{{Name: "a"}, {Name: "b"}}, ring.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	view, err := old.Next([]ring.Member{{Name: "b", Incarnation: 2}, {Name: "c"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	diff := view.Diff(old)
	fmt.Println("joined:", diff.Joined[0].Name)
	fmt.Println("left:", diff.Left[0].Name)
	fmt.Println("restarted:", diff.Restarted[0].Name)
	fmt.Println("moved:", len(diff.Moved) > 0)
	// Output:
	// joined: c
	// left: a
	// restarted: b
	// moved: true
}

func ExampleNew_error() {
	_, err := ring.New([]ring.Member{{Name: "a"}, {Name: "a"}}, ring.Config{})
	fmt.Println(errors.Is(err, ring.ErrDuplicateMember), err)
	// Output: true ring: duplicate member: "a"
}
