package ring
import ("testing";"fmt";"github.com/buraksezer/consistent";"time")
func TestZZ(t *testing.T){
 for _,n:=range []int{3,100,1000}{
  var ms []Member; var nodes []consistent.Member
  for i:=range n { m:=Member{Name:fmt.Sprintf("node-%04d",i)}; ms=append(ms,m); nodes=append(nodes,node{m.Name,i})}
  for range 3 {
  t0:=time.Now(); v,err:=New(ms,Config{}); if err!=nil{t.Fatal(err)}
  t1:=time.Now(); v.ring(); t2:=time.Now()
  c:=consistent.New(nodes,consistent.Config{Hasher:hasher{},PartitionCount:4093,ReplicationFactor:20,Load:1.25})
  t3:=time.Now(); c.Remove(ms[1].Name); t4:=time.Now(); for p:=range 4093 {c.GetPartitionOwner(p)}; t5:=time.Now(); c.Add(nodes[1]); t6:=time.Now()
  fmt.Println(n,"New",t1.Sub(t0),"points",t2.Sub(t1),"lib",t3.Sub(t2),"remove",t4.Sub(t3),"read",t5.Sub(t4),"add",t6.Sub(t5))
  }}
}
