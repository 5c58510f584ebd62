# The micro-guest of acceleration.py: a boot sector that does in 512 bytes what every operating system does first, and what a
# broken accelerator fails at or crawls through: it sets up paging, enters 64-bit mode, touches 8 MiB of memory eight times,
# sleeps (hlt) until eight timer interrupts have come, writes its marker to the serial port and leaves QEMU through the
# isa-debug-exit device. Assemble: as micro_guest.S && ld -Ttext 0x7c00 --oformat binary. test_acceleration.py does so
# and compares the outcome with the bytes committed in acceleration.py.
        .globl _start
        .code16
_start: cli
        xor     %ax, %ax
        mov     %ax, %ds
        mov     %ax, %es
        mov     %ax, %ss
        mov     $0x7c00, %sp
        xor     %ebp, %ebp
        cld
        # Page tables at 0x1000, 0x2000, 0x3000, the interrupt table at 0x4000: all zero first.
        mov     $0x1000, %edi
        mov     %edi, %cr3
        xor     %eax, %eax
        mov     $0x1000, %ecx
        rep stosl
        movw    $0x2003, 0x1000
        movw    $0x3003, 0x2000
        mov     $0x3000, %di            # eight pages of 2 MiB, mapped to themselves
        mov     $0x83, %eax
        mov     $8, %cl
1:      mov     %eax, (%di)
        add     $0x200000, %eax
        add     $8, %di
        loop    1b
        # Gate 0x20 (timer) -> tick, and the interrupt controller moved there with only the timer let through.
        movw    $tick, 0x4200
        movl    $0x8e000008, 0x4202     # selector 8, present interrupt gate
        mov     $0x11, %al
        out     %al, $0x20
        mov     $0x20, %al
        out     %al, $0x21
        mov     $0x04, %al
        out     %al, $0x21
        mov     $0x01, %al
        out     %al, $0x21
        mov     $0xfe, %al
        out     %al, $0x21
        mov     $0xff, %al
        out     %al, $0xa1
        mov     $0x34, %al              # timer 0 every 11932 of 1193182 ticks a second: 100 Hz
        out     %al, $0x43
        mov     $0x9c, %al
        out     %al, $0x40
        mov     $0x2e, %al
        out     %al, $0x40
        # Into 64-bit mode.
        mov     $0x20, %eax
        mov     %eax, %cr4
        mov     $0xc0000080, %ecx
        rdmsr
        or      $0x100, %eax
        wrmsr
        mov     %cr0, %eax
        or      $0x80000001, %eax
        mov     %eax, %cr0
        lgdtl   gdtr
        ljmp    $8, $long

        .code64
long:   mov     $0x10, %eax
        mov     %eax, %ds
        mov     %eax, %es
        mov     %eax, %ss
        lidt    idtr
        # 8 MiB from 4 MiB on, eight times over.
        mov     $8, %ebx
2:      mov     $0x400000, %edi
        mov     $0x100000, %ecx
        mov     %rbx, %rax
        rep stosq
        dec     %ebx
        jnz     2b
        # Eight timer interrupts.
        sti
3:      hlt
        cmp     $8, %ebp
        jb      3b
        cli
        mov     $message, %esi
        mov     $0x3f8, %edx
4:      lodsb
        test    %al, %al
        jz      5f
        out     %al, %dx
        jmp     4b
5:      mov     $0x501, %edx
        mov     $0x15, %al              # QEMU's exit code becomes 0x15 * 2 + 1 = 43
        out     %al, %dx
6:      hlt
        jmp     6b

tick:   inc     %ebp
        push    %rax
        mov     $0x20, %al
        out     %al, $0x20
        pop     %rax
        iretq

message:
        .asciz  "stratograph micro-guest\n"
        .balign 8
gdt:    .quad   0, 0x00209a0000000000, 0x0000920000000000
gdtr:   .word   23
        .long   gdt
idtr:   .word   0x0fff
        .quad   0x4000
        .org    510
        .word   0xaa55
