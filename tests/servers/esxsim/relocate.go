package main

import (
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// relocated puts a machine on its new host's list and takes it from the others', which the simulator forgets.
func relocated(m *simulator.Method, result types.AnyType) (types.AnyType, types.BaseMethodFault) {
	to := m.Body.(*types.RelocateVM_Task).Spec.Host
	if to == nil {
		return result, nil
	}
	for _, e := range simulator.Map.All("HostSystem") {
		host := e.(*simulator.HostSystem)
		var kept []types.ManagedObjectReference
		for _, vm := range host.Vm {
			if vm != m.This {
				kept = append(kept, vm)
			}
		}
		if host.Self == *to {
			kept = append(kept, m.This)
		}
		simulator.Map.Update(host, []types.PropertyChange{{Name: "vm", Val: kept}})
	}
	return result, nil
}

// settled tells the collectors what the simulator sets on a machine without a word after it has put it into the
// inventory: who looked in that moment would know it half for ever, as on no host.
func settled(result types.AnyType) {
	ref, _ := result.(types.ManagedObjectReference)
	vm, ok := simulator.Map.Get(ref).(*simulator.VirtualMachine)
	if !ok || vm.Config == nil {
		return
	}
	simulator.Map.WithLock(vm, func() {
		simulator.Map.Update(vm, []types.PropertyChange{
			{Name: "config.instanceUuid", Val: vm.Config.InstanceUuid},
			{Name: "config.extraConfig", Val: vm.Config.ExtraConfig},
			{Name: "config.hardware.numCPU", Val: vm.Config.Hardware.NumCPU},
			{Name: "config.hardware.memoryMB", Val: vm.Config.Hardware.MemoryMB},
			{Name: "config.hardware.device", Val: vm.Config.Hardware.Device},
			{Name: "runtime.connectionState", Val: vm.Runtime.ConnectionState},
			{Name: "runtime.host", Val: *vm.Runtime.Host},
		})
	})
}

// What changes a machine's configuration, which gets a version with it on a host and none in the simulator.
var changing = map[string]bool{"CreateVM_Task": true, "ReconfigVM_Task": true, "CreateSnapshot_Task": true,
	"RevertToSnapshot_Task": true, "RemoveAllSnapshots_Task": true, "RelocateVM_Task": true}

// versioned gives a machine's configuration a new version; ref is the machine, or what the task made.
func versioned(ref types.ManagedObjectReference, result types.AnyType) {
	if made, ok := result.(types.ManagedObjectReference); ok && made.Type == "VirtualMachine" {
		ref = made
	}
	vm, ok := simulator.Map.Get(ref).(*simulator.VirtualMachine)
	if !ok || vm.Config == nil {
		return
	}
	simulator.Map.WithLock(vm, func() { vm.Config.ChangeVersion = time.Now().UTC().Format(time.RFC3339Nano) })
}
