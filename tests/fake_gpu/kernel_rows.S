// The kernel rows, as bytes of the library: one file is all that a process has to load.

        .section .rodata
        .global kernel_rows_begin
        .global kernel_rows_end
        .hidden kernel_rows_begin
        .hidden kernel_rows_end
kernel_rows_begin:
        .incbin KERNEL_ROWS
kernel_rows_end:
        .section .note.GNU-stack, "", @progbits
