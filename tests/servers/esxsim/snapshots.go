package main

import (
	"sync"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// What a host restores with a snapshot and the simulator leaves as it is: whether the machine ran. A snapshot without
// memory leaves it off.
var remembered = struct {
	sync.Mutex
	ran map[types.ManagedObjectReference]bool
}{ran: map[types.ManagedObjectReference]bool{}}

func snapped(m *simulator.Method, result types.AnyType) (types.AnyType, types.BaseMethodFault) {
	ref, ok := result.(types.ManagedObjectReference)
	vm, found := simulator.Map.Get(m.This).(*simulator.VirtualMachine)
	if ok && found {
		remembered.Lock()
		running := vm.Runtime.PowerState == types.VirtualMachinePowerStatePoweredOn
		remembered.ran[ref] = running && m.Body.(*types.CreateSnapshot_Task).Memory
		remembered.Unlock()
	}
	return result, nil
}

func reverted(m *simulator.Method, result types.AnyType) (types.AnyType, types.BaseMethodFault) {
	remembered.Lock()
	state := types.VirtualMachinePowerStatePoweredOff
	if remembered.ran[m.This] {
		state = types.VirtualMachinePowerStatePoweredOn
	}
	remembered.Unlock()
	if snapshot, ok := simulator.Map.Get(m.This).(*simulator.VirtualMachineSnapshot); ok {
		vm := simulator.Map.Get(snapshot.Vm).(*simulator.VirtualMachine)
		simulator.Map.Update(vm, []types.PropertyChange{
			{Name: "runtime.powerState", Val: state},
			{Name: "summary.runtime.powerState", Val: state},
		})
	}
	return result, nil
}

// unsnapped removes a snapshot and leaves its children to its parent. The simulator's own way loses its footing when the
// current snapshot is a root.
func unsnapped(m *simulator.Method) (types.AnyType, types.BaseMethodFault) {
	req := m.Body.(*types.RemoveSnapshot_Task)
	snapshot, ok := simulator.Map.Get(m.This).(*simulator.VirtualMachineSnapshot)
	if !ok {
		return nil, &types.ManagedObjectNotFound{Obj: m.This}
	}
	vm := simulator.Map.Get(snapshot.Vm).(*simulator.VirtualMachine)
	info := types.VirtualMachineSnapshotInfo{CurrentSnapshot: vm.Snapshot.CurrentSnapshot}
	var parent *types.ManagedObjectReference
	info.RootSnapshotList, parent = without(vm.Snapshot.RootSnapshotList, m.This, nil, req.RemoveChildren)
	if info.CurrentSnapshot != nil && *info.CurrentSnapshot == m.This {
		info.CurrentSnapshot = parent
	}
	var val types.AnyType
	if len(info.RootSnapshotList) > 0 {
		val = &info
	}
	simulator.Map.Update(vm, []types.PropertyChange{{Name: "snapshot", Val: val}})
	simulator.Map.Remove(m.This)
	return nil, nil
}

// without is the tree without that node, and the parent that the node had.
func without(tree []types.VirtualMachineSnapshotTree, gone types.ManagedObjectReference,
	above *types.ManagedObjectReference, all bool) ([]types.VirtualMachineSnapshotTree, *types.ManagedObjectReference) {
	var kept []types.VirtualMachineSnapshotTree
	var parent *types.ManagedObjectReference
	for _, node := range tree {
		if node.Snapshot == gone {
			parent = above
			if !all {
				kept = append(kept, node.ChildSnapshotList...)
			}
			continue
		}
		self := node.Snapshot
		children, found := without(node.ChildSnapshotList, gone, &self, all)
		node.ChildSnapshotList = children
		if found != nil {
			parent = found
		}
		kept = append(kept, node)
	}
	return kept, parent
}
